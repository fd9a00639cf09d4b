// One embryo: what all its photographs say together, each of them, and where every grade comes from.

import { ask, el, mapOf, photograph, unseen } from "./dom.js";
import { chart } from "./chart.js";
import { ASSESSMENTS, HEADS, container, hpi, number, reasonsOf, utc, verdict } from "./words.js";

/** Shows an embryo in `main` and keeps it up to date; returns how to stop. */
export function showEmbryo(main, id, wall) {
  document.title = `${id} - memebg board`;
  const title = el("h1", {}, id);
  const place = el("p", { class: "place" });
  const review = el("a", { class: "button primary", href: `#/review/${encodeURIComponent(id)}` }, "Review this embryo");
  const body = el("div", { class: "embryo" }, el("p", { class: "empty" }, "Loading…"));
  main.replaceChildren(
    el("div", { class: "bar" }, el("a", { class: "button", href: "#/" }, "← Wall"), title, place, review), body,
  );
  // The last photograph, until another one is chosen.
  let look = "photo", chosen = null, known = null, gone = false, loading = false, again = false;
  const left = new AbortController();
  const photos = new Map();
  /** The same element for the same photograph, so that nothing flickers when the view is drawn anew. */
  const held = (kind, frame, alt, attributes) => {
    const key = `${kind} ${frame.image_sha256} ${frame.image}`;
    const source = HEADS[kind] && mapOf(frame, kind);
    if (!photos.has(key)) photos.set(key, el("div", {}, photograph(frame, alt, attributes, source)));
    return photos.get(key);
  };

  async function load() {
    if (loading) { again = true; return; }
    loading = true;
    try {
      known = await ask(`/api/embryos/${encodeURIComponent(id)}`, { signal: left.signal });
      if (!gone) draw();
    } catch (error) {
      if (!gone && !known) body.replaceChildren(el("p", { class: "empty" }, error.message));
    }
    loading = false;
    if (again && !gone) { again = false; load(); }
  }

  function choose(frame) {
    const last = known.frames.at(-1)?.frame.id;
    chosen = frame === last ? null : frame;
    draw();
  }

  function draw() {
    const { cell, frames } = known;
    const looked = frames.find(({ frame }) => frame.id === chosen) || frames.at(-1);
    const { kind, id: inside } = container(cell);
    place.textContent = `${kind} ${inside}, well ${cell.well} · ${cell.instrument?.serial || "incubator not known"} · ${cell.site_id}`;
    const { frame: focused, look: wasLook } = document.activeElement?.dataset ?? {};
    const strip = el("ol", { class: "strip" }, frames.map((it) => el("li", {}, thumbnail(it, it === looked, choose, held))));
    const old = body.querySelector(".strip");
    const scrolled = old ? old.scrollLeft : Infinity;
    body.replaceChildren(
      el("section", { class: "panel look", "aria-label": "Photograph" }, looked ? photo(looked, held, known.maps, look, (it) => { look = it; draw(); }) : el("p", { class: "empty" }, "No photograph since the board started.")),
      el("section", { class: "panel", "aria-label": "All photographs together" }, together(cell)),
      el("section", { class: "panel heads", "aria-label": "This photograph" }, looked ? grades(looked.frame) : null),
      el("section", { class: "panel wide", "aria-label": "Timeline" }, el("h2", {}, "Timeline"),
        chart({ trajectory: cell.summary?.trajectory || [], frames, window: cell.summary?.window, selected: looked?.frame.id, choose }),
        el("p", { class: "key" }, el("span", { class: "k-line" }, "all photographs of a time"), el("span", { class: "k-dot" }, "a graded photograph"), el("span", { class: "k-tri" }, "one without a grade")),
        strip),
      el("section", { class: "panel wide", "aria-label": "Provenance" }, looked ? provenance(looked.frame) : null),
    );
    strip.scrollLeft = scrolled === Infinity ? strip.scrollWidth : scrolled;
    if (focused) [...strip.querySelectorAll("button")].find((it) => it.dataset.frame === focused)?.focus({ preventScroll: true });
    if (wasLook) body.querySelector(".looks input:checked")?.focus({ preventScroll: true });
  }

  const watcher = (changed) => changed.includes(id) && load();
  wall.watchers.add(watcher);
  load();
  return () => { gone = true; left.abort(); wall.watchers.delete(watcher); };
}

function thumbnail({ frame, image }, looked, choose, held) {
  const grade = frame.gardner || "–";
  return el("button", {
    type: "button", "data-frame": frame.id, "aria-pressed": String(looked), onclick: () => choose(frame.id),
  },
    held("small", { ...frame, image }, "", { loading: "lazy" }),
    el("span", { class: "grade" }, frame.status === "graded" ? grade : el("span", {}, el("span", { "aria-hidden": "true" }, "△"), unseen("not graded"))),
    el("span", {}, hpi(frame.hpi)));
}

/** The photograph, and where each head looked. */
function photo({ frame, image }, held, maps, look, change) {
  const heads = image && maps ? Object.keys(HEADS).filter((head) => frame[head]) : [];
  const shown = heads.includes(look) ? look : "photo";
  const choice = (value, text) => el("label", {},
    el("input", { type: "radio", name: "look", "data-look": value, value, checked: value === shown, onchange: () => change(value) }), el("span", {}, text));
  return [
    shown === "photo" ? held("large", { ...frame, image }, `Photograph at ${hpi(frame.hpi)}`) : held(shown, { ...frame, image }, `Where the model looked for ${HEADS[shown].name}`),
    heads.length > 0 && el("fieldset", { class: "filter looks" }, el("legend", { class: "sr" }, "Photograph, or where the model looked"),
      choice("photo", "Photo"), heads.map((head) => choice(head, head.toUpperCase()))),
    el("p", { class: "under" }, `${hpi(frame.hpi)} · ${utc(frame.captured_at)} · focal plane ${frame.focal_plane.index + 1} of ${frame.focal_plane.count}`),
    el("p", { class: "under" }, shown === "photo" ? "As the model sees it: cropped to a square, in grey." : "What each part adds to the grade of this head, from nothing over violet and red to yellow."),
  ];
}

function together(cell) {
  const { gardner, confidence, assessment, basis, ours } = verdict(cell);
  const { summary } = cell;
  const { mark, text } = ASSESSMENTS[assessment];
  const rows = [];
  if (confidence !== null && confidence !== undefined) rows.push(["Confidence", number(confidence)]);
  rows.push(["Rests on", basis]);
  if (summary) {
    rows.push(["Window", `${summary.window.from_hpi} to ${summary.window.to_hpi} hpi, ${summary.status === "final" ? "over" : "more photographs expected"}`]);
    const against = summary.disagreement;
    if (against) {
      const said = Object.keys(HEADS).filter((head) => against[head] !== undefined).map((head) => `${head.toUpperCase()} ${Math.round(against[head] * 100)} %`);
      rows.push(["Photographs that say otherwise", said.join(", ")]);
    }
    const reasons = Object.entries(summary.abstentions).map(([reason, frames]) => `${reasonsOf({ reasons: [reason] })} (${frames})`);
    if (reasons.length > 0) rows.push(["Not graded because", reasons.join(", ")]);
    rows.push(["Version of the summary", String(summary.version)]);
  }
  const review = summary?.review;
  return [
    el("h2", {}, review ? "Grade after review" : "All photographs together"),
    el("p", { class: "verdict" }, el("strong", { class: "grade" }, gardner || "no grade"),
      el("span", { class: "badge", "data-assessment": assessment }, el("span", { "aria-hidden": "true" }, mark), ` ${text}`)),
    el("dl", { class: "facts" }, rows.map(([term, value]) => [el("dt", {}, term), el("dd", {}, value)])),
    review && el("div", { class: "review" }, el("h3", {}, "Review"),
      el("dl", { class: "facts" },
        fact("Reviewer", review.reviewer), fact("When", utc(review.reviewed_at)),
        fact("Before seeing ours", review.blinded ? "yes" : "no"), fact("Reason", review.reason.replaceAll("_", " ")),
        fact("Their grade", review.gardner), fact("Ours", ours), fact("Reviews of this embryo", String(summary.reviews ?? 1)))),
  ];
}

function fact(term, value) {
  return [el("dt", {}, term), el("dd", {}, value)];
}

function grades(frame) {
  const doubted = frame.status !== "graded";
  const heads = Object.keys(HEADS).filter((head) => frame[head]);
  return [
    el("h2", {}, `This photograph: ${frame.gardner || "not graded"}`),
    doubted && el("p", { class: "doubt" }, el("span", { "aria-hidden": "true" }, "△ "), `Not graded: ${reasonsOf(frame)}. `,
      heads.length > 0 ? "What the model said is shown for whoever looks into it; it is no grade." : "The model was not asked."),
    heads.map((head) => bars(head, frame[head])),
    heads.length === 1 && !doubted && el("p", { class: "under" }, "Below expansion 3 there is no grade of ICM and TE."),
  ];
}

/** The probabilities of a head, each with its number; the likeliest class has a mark as well. */
export function bars(head, { grade, probabilities }) {
  const { name, classes } = HEADS[head];
  return el("table", { class: "bars" }, el("caption", {}, name),
    el("thead", { class: "sr" }, el("tr", {}, el("th", { scope: "col" }, "class"), el("th", { scope: "col" }, "probability"))),
    el("tbody", {}, classes.map((it) => {
      const p = probabilities[it] ?? 0;
      const bar = el("span", { class: "fill" });
      bar.style.inlineSize = `${(p * 100).toFixed(1)}%`;
      const likeliest = String(grade) === it;
      return el("tr", { class: likeliest ? "likeliest" : "" },
        el("th", { scope: "row" }, it, likeliest ? [el("span", { "aria-hidden": "true" }, " ●"), unseen(" likeliest")] : null),
        el("td", {}, el("span", { class: "track", "aria-hidden": "true" }, bar), el("span", { class: "p" }, number(p))));
    })));
}

function provenance(frame) {
  const { model } = frame;
  const digest = (text) => el("code", { title: text }, text);
  return [
    el("h2", {}, "Where this grade comes from"),
    el("dl", { class: "facts" },
      fact("Model", `${model.name} ${model.version}${model.untrained ? " — UNTRAINED: its grades mean nothing" : ""}`),
      fact("Digest of the model bundle", digest(model.digest)), fact("Digest of the image", digest(frame.image_sha256)),
      fact("Grade event", digest(frame.id)), fact("memebg", frame.pipeline_version),
      fact("Photograph taken", utc(frame.captured_at)), fact("Graded", utc(frame.graded_at)), fact("Run", String(frame.run))),
  ];
}
