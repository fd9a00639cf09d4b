// A review: first the reviewer's own grade, before anything of ours is fetched; then both side by side.

import { announce, ask, el, photograph } from "./dom.js";
import { bars } from "./embryo.js";
import { EXPANSIONS, HEADS, LETTERS, container, hpi, utc } from "./words.js";

const BLINDED_REASONS = { routine: "routine", poor_image: "the photographs do not show enough", other: "other" };
const REASONS = {
  routine: "routine", wrong_expansion: "expansion is wrong", wrong_icm: "ICM is wrong", wrong_te: "TE is wrong",
  poor_image: "the photographs do not show enough", other: "other",
};
const REVIEWER = "memebg-reviewer";
const PSEUDONYM = "[A-Za-z0-9._\\-]{1,64}";

/** Shows the form in `main`; returns how to stop. */
export function showReview(main, id) {
  document.title = `Review of ${id} - memebg board`;
  const back = `#/embryo/${encodeURIComponent(id)}`;
  const body = el("div", { class: "reviewing" }, el("p", { class: "empty" }, "Loading…"));
  main.replaceChildren(
    el("div", { class: "bar" }, el("a", { class: "button", href: "#/" }, "← Wall"), el("h1", {}, `Review ${id}`), el("p", { class: "place" })), body,
  );
  let gone = false;

  async function start(blinded) {
    try {
      const known = await ask(`/api/embryos/${encodeURIComponent(id)}/blinded`);
      const ours = blinded ? null : (await ask(`/api/embryos/${encodeURIComponent(id)}`)).cell.summary;
      if (gone) return;
      const { kind, id: inside } = container(known.place);
      main.querySelector(".place").textContent = `${kind} ${inside}, well ${known.place.well}`;
      const version = blinded ? known.summary_version : ours?.version;
      if (!version) {
        body.replaceChildren(el("p", { class: "empty" }, "There is no summary of this embryo yet, so there is nothing to review."));
        return;
      }
      body.replaceChildren(photographs(known.frames), form({ id, version, blinded, ours, start, done }));
    } catch (error) {
      if (!gone) body.replaceChildren(el("p", { class: "empty", role: "alert" }, error.message));
    }
  }

  /** Ours is fetched only now that the reviewer's own grade is recorded. */
  async function done(sent, answer) {
    announce(`Your grade ${answer.gardner} is recorded.`);
    const panel = el("section", { class: "panel", tabindex: "-1", "aria-label": "Recorded" });
    if (sent.blinded) {
      try {
        const { cell } = await ask(`/api/embryos/${encodeURIComponent(id)}`);
        if (gone) return;
        panel.append(...compare(sent, answer, cell.summary, back, (other) => done(other.sent, other.answer)));
      } catch (error) {
        panel.append(el("p", { role: "alert" }, `Your grade ${answer.gardner} is recorded. Ours cannot be shown: ${error.message}`));
      }
    } else {
      panel.append(recorded(answer), el("p", {}, el("a", { class: "button primary", href: back }, "Back to the embryo")));
    }
    body.querySelector("form, .panel.answer")?.replaceWith(panel);
    panel.classList.add("answer");
    panel.focus();
  }

  start(true);
  return () => { gone = true; };
}

/** All photographs, one at a time. */
function photographs(frames) {
  const held = frames.filter((frame) => frame.image);
  if (held.length === 0) return el("section", { class: "panel look", "aria-label": "Photographs" }, el("p", { class: "empty" }, "The board holds no photograph of this embryo."));
  const place = el("div", {});
  const text = el("output", { class: "under", for: "frame" });
  const slider = el("input", { id: "frame", type: "range", min: 0, max: held.length - 1, value: held.length - 1, oninput: draw });
  function draw() {
    const frame = held[Number(slider.value)];
    place.replaceChildren(photograph(frame, `Photograph at ${hpi(frame.hpi)}`));
    text.textContent = `${hpi(frame.hpi)} · ${utc(frame.captured_at)} · ${Number(slider.value) + 1} of ${held.length}`;
    slider.setAttribute("aria-valuetext", hpi(frame.hpi));
  }
  draw();
  return el("section", { class: "panel look", "aria-label": "Photographs" }, place,
    el("label", { for: "frame" }, "Photographs, earlier to later"), slider, text);
}

function form({ id, version, blinded, ours, start, done }) {
  const problem = el("p", { class: "problem", role: "alert" });
  const letters = ["icm", "te"].map((head) => choices(head, HEADS[head].name, LETTERS[head]));
  const expansion = choices("exp", HEADS.exp.name, EXPANSIONS);
  const reviewer = el("input", {
    id: "reviewer", name: "reviewer", required: true, pattern: PSEUDONYM, maxlength: 64, autocomplete: "off", spellcheck: "false",
    "aria-describedby": "reviewer-hint", value: localStorage.getItem(REVIEWER) || "",
  });
  const reasons = Object.entries(blinded ? BLINDED_REASONS : REASONS);
  const send = el("button", { class: "primary" }, blinded ? "Record my grade, then show memebg's" : "Record my grade");
  const itself = el("form", { class: "panel answer", onsubmit: submit, onchange: lettersFit },
    el("h2", {}, "Your grade"),
    blinded
      ? el("p", { class: "hint" }, "memebg's grade is hidden until yours is recorded. ", el("button", { type: "button", class: "plain", onclick: () => start(false) }, "Review with memebg's grade shown"))
      : el("p", { class: "hint" }, "Not blinded: memebg says ", el("strong", {}, ours?.gardner || "no grade"), ". ", el("button", { type: "button", class: "plain", onclick: () => start(true) }, "Hide it")),
    expansion, letters,
    el("p", { class: "field" }, el("label", { for: "reason" }, "Why there is a review"),
      el("select", { id: "reason", name: "reason" }, reasons.map(([value, text]) => el("option", { value }, text)))),
    el("p", { class: "field" }, el("label", { for: "reviewer" }, "Your pseudonym"), reviewer,
      el("span", { class: "hint", id: "reviewer-hint" }, "Letters, digits, dot, underscore, hyphen. Never a name.")),
    problem, el("p", { class: "buttons" }, send));

  function lettersFit() {
    const full = Number(new FormData(itself).get("exp")) >= 3;
    for (const group of letters) {
      group.disabled = !full;
      for (const input of group.querySelectorAll("input")) input.required = full;
    }
  }

  async function submit(event) {
    event.preventDefault();
    const data = new FormData(itself);
    const sent = { embryo_id: id, reviewer: data.get("reviewer"), exp: Number(data.get("exp")), reason: data.get("reason"), blinded, summary_version: version };
    for (const head of ["icm", "te"]) if (data.get(head)) sent[head] = data.get(head);
    localStorage.setItem(REVIEWER, sent.reviewer);
    send.disabled = true;
    problem.textContent = "";
    try {
      await done(sent, await record(sent));
    } catch (error) {
      problem.textContent = `Not recorded: ${error.message}`;
      send.disabled = false;
    }
  }

  lettersFit();
  return itself;
}

function choices(name, title, classes) {
  return el("fieldset", { class: "choices" }, el("legend", {}, title),
    Object.entries(classes).map(([value, text]) => el("label", {},
      el("input", { type: "radio", name, value, required: true }), el("span", {}, el("b", {}, value), el("small", {}, text)))));
}

function record(review) {
  return ask("/api/reviews", { method: "POST", headers: { "content-type": "application/json", accept: "application/json" }, body: JSON.stringify(review) });
}

function recorded(answer) {
  return el("p", { class: "recorded" }, el("span", { "aria-hidden": "true" }, "✓ "), `Recorded: ${answer.gardner}. The summary follows within seconds.`);
}

/** Both side by side, and which one stays. */
function compare(sent, answer, summary, back, next) {
  const agree = summary?.gardner === answer.gardner;
  const problem = el("p", { class: "problem", role: "alert" });
  const take = el("button", { type: "button" }, `Take memebg's ${summary?.gardner}`);
  take.addEventListener("click", async () => {
    take.disabled = true;
    const { reviewer, embryo_id, reason } = sent;
    // Given after ours was seen, so it is not blinded; what was said before stays on the topic.
    const other = { embryo_id, reviewer, reason, blinded: false, summary_version: summary.version, exp: summary.exp.grade, icm: summary.icm?.grade, te: summary.te?.grade };
    try {
      await next({ sent: other, answer: await record(other) });
    } catch (error) {
      problem.textContent = `Not recorded: ${error.message}`;
      take.disabled = false;
    }
  });
  const keep = el("a", { class: "button primary", href: back }, agree ? "Back to the embryo" : `Keep mine, ${answer.gardner}`);
  return [
    recorded(answer),
    el("div", { class: "versus" },
      el("div", {}, el("h2", {}, "Yours"), el("strong", { class: "grade" }, answer.gardner)),
      el("div", {}, el("h2", {}, "memebg's"), el("strong", { class: "grade" }, summary?.gardner || "no grade"))),
    el("p", {}, agree ? "You agree." : "You see it differently. Yours stands unless you take memebg's instead."),
    el("p", { class: "buttons" }, keep, !agree && summary?.gardner ? take : null), problem,
    summary?.exp ? el("div", { class: "heads" }, el("h2", {}, "What memebg says"), Object.keys(HEADS).filter((head) => summary[head]).map((head) => bars(head, summary[head]))) : null,
  ].filter(Boolean);
}
