// The wall: every well, grouped as it stands in the laboratory. Cells are changed where they are, so that whoever has the
// focus on one, or reads it, keeps it.

import { el, mapOf, photograph, say, unseen } from "./dom.js";
import { ASSESSMENTS, ago, container, hpi, number, reasonsOf, verdict } from "./words.js";

const FILTERS = {
  all: ["All", () => true],
  review: ["To review", ({ summary }) => summary && summary.assessment === "preliminary"],
  doubted: ["Not graded", ({ latest }) => latest && latest.status === "abstained"],
};
const AGE_EVERY_MS = 5000;
/** Whoever only passes over a cell is shown nothing. */
const PEEK_AFTER_MS = 400;
/** Sides of a cell, in letter widths. */
const SMALLEST = 8.6, LARGEST = 20;
/** How much of the screen cells can take, beside what stands between them, and how high one is. */
const SHARE = 0.4, HEIGHT = 1.55;

export class Wall {
  cells = new Map();
  watchers = new Set();
  filter = "all";
  #shown = new Map();
  #root = null;
  #told = false;

  /** Nothing is known any more; what is shown stays until it is told anew. */
  forget() {
    this.cells.clear();
    this.#told = false;
  }

  take({ all, cells, gone }) {
    if (all) this.forget();
    this.#told = true;
    for (const cell of cells) this.cells.set(cell.embryo_id, cell);
    for (const id of gone) this.cells.delete(id);
    const changed = cells.map((cell) => cell.embryo_id);
    for (const watcher of this.watchers) watcher(changed);
    if (this.#root) this.#draw(new Set(changed));
  }

  /** Shows itself; the focus goes to the cell of the embryo that was looked at last. */
  show(main, focused) {
    document.title = "Wall - memebg board";
    this.#shown.clear();
    this.#root = el("div", { class: "incubators" });
    const filters = Object.entries(FILTERS).map(([key, [text]]) => {
      const box = el("input", {
        type: "radio", name: "filter", value: key, checked: key === this.filter,
        onchange: () => { this.filter = key; this.#draw(new Set()); },
      });
      return el("label", {}, box, el("span", {}, text));
    });
    main.replaceChildren(
      el("div", { class: "bar" }, el("h1", {}, "Wall"), el("fieldset", { class: "filter" }, el("legend", { class: "sr" }, "Show"), filters)),
      this.#root,
    );
    this.#draw(new Set());
    this.#root.addEventListener("keydown", (event) => step(event, this.#root));
    const fit = () => this.#fit();
    addEventListener("resize", fit);
    if (focused) this.#shown.get(focused)?.link.focus();
    const timer = setInterval(() => this.#shown.forEach((shown, id) => age(shown, this.cells.get(id))), AGE_EVERY_MS);
    return () => { clearInterval(timer); removeEventListener("resize", fit); this.#root = null; };
  }

  /** Few embryos are shown large, so that they can be seen from afar. */
  #fit() {
    const { inlineSize } = getComputedStyle(this.#root);
    const letter = parseFloat(getComputedStyle(document.documentElement).fontSize);
    const area = parseFloat(inlineSize) * (innerHeight - this.#root.offsetTop);
    const side = Math.sqrt((area * SHARE) / (Math.max(1, this.#shown.size) * HEIGHT)) / letter;
    const whole = Math.floor(Math.min(LARGEST, side));
    this.#root.style.setProperty("--cell", `${Math.max(SMALLEST, whole)}rem`);
  }

  #draw(changed) {
    const wanted = [...this.cells.values()].filter(FILTERS[this.filter][1]).sort(inOrder);
    const ids = new Set(wanted.map((cell) => cell.embryo_id));
    for (const [id, shown] of this.#shown) {
      if (ids.has(id)) continue;
      shown.link.remove();
      this.#shown.delete(id);
    }
    for (const cell of wanted) {
      let shown = this.#shown.get(cell.embryo_id);
      if (!shown) {
        shown = make(cell);
        this.#shown.set(cell.embryo_id, shown);
        insert(this.#place(cell), shown.link, cell.well);
        update(shown, cell);
      } else if (changed.has(cell.embryo_id)) {
        update(shown, cell);
      }
    }
    this.#fit();
    for (const group of this.#root.querySelectorAll(".slide, .incubator")) {
      if (!group.querySelector(".cell")) group.remove();
    }
    this.#root.querySelector(":scope > .empty")?.remove();
    if (wanted.length === 0) {
      const text = !this.#told ? "Looking for embryos…"
        : this.cells.size > 0 ? "No embryo is of this kind now."
        : "No embryo has been graded yet. Grades come once embryos reach day 5.";
      this.#root.append(el("p", { class: "empty" }, text));
    }
  }

  /** The row of wells of a slide, made where it belongs. */
  #place(cell) {
    const { vendor, model, serial } = cell.instrument || { vendor: "", model: "not known since the board started", serial: "Incubator" };
    const key = `${cell.site_id} ${serial}`;
    let incubator = child(this.#root, key);
    if (!incubator) {
      incubator = el("section", { class: "incubator", "aria-label": `Incubator ${serial}` },
        el("h2", {}, serial, el("small", {}, `${vendor} ${model} · ${cell.site_id}`)));
      insert(this.#root, incubator, key);
    }
    const { kind, id } = container(cell);
    let slide = child(incubator, id);
    if (!slide) {
      slide = el("div", { class: "slide" }, el("h3", {}, `${kind} ${id}`), el("div", { class: "wells" }));
      insert(incubator, slide, id);
    }
    return slide.querySelector(".wells");
  }
}

function inOrder(one, other) {
  return String(one.embryo_id).localeCompare(other.embryo_id, "en", { numeric: true });
}

function child(parent, key) {
  return [...parent.children].find((it) => it.dataset.key === String(key));
}

/** Puts an element among its siblings, in the order of their keys. */
function insert(parent, element, key) {
  element.dataset.key = String(key);
  const after = [...parent.children].find(
    (it) => it.dataset.key !== undefined && it.dataset.key.localeCompare(element.dataset.key, "en", { numeric: true }) > 0,
  );
  parent.insertBefore(element, after || null);
}

function make(cell) {
  const parts = {
    photo: el("div", { class: "frame" }),
    grade: el("strong", { class: "grade" }),
    confidence: el("span", { class: "confidence" }),
    level: el("span", { class: "level", "aria-hidden": "true" }, el("span")),
    badge: el("span", { class: "badge" }),
    doubt: el("span", { class: "doubt" }),
    when: el("span", { class: "when" }),
  };
  const link = el("a", { class: "cell", href: `#/embryo/${encodeURIComponent(cell.embryo_id)}` },
    parts.photo,
    el("span", { class: "well" }, unseen("Well "), String(cell.well)),
    el("span", { class: "line" }, parts.grade, parts.confidence),
    parts.level, parts.badge, parts.doubt, parts.when);
  const shown = { link, ...parts, sha256: undefined };
  link.addEventListener("pointerenter", () => peek(shown));
  link.addEventListener("focus", () => peek(shown));
  link.addEventListener("pointerleave", () => unpeek(shown));
  link.addEventListener("blur", () => unpeek(shown));
  return shown;
}

/** Whoever stays on a cell is shown where the model looked for the expansion, if the board knows. */
function peek(shown) {
  clearTimeout(shown.timer);
  shown.timer = setTimeout(() => {
    const { map } = shown;
    if (!map || shown.photo.querySelector(".heat")) return;
    const heat = el("img", { class: "photo heat", alt: "", src: map, width: 448, height: 448 });
    // Meanwhile somebody may have left, or another photograph have come.
    const wanted = () => shown.timer && shown.map === map && !shown.photo.querySelector(".heat");
    heat.addEventListener("load", () => wanted() && shown.photo.append(heat, el("span", { class: "heat-key" }, "EXP: where the model looked")), { once: true });
  }, PEEK_AFTER_MS);
}

function unpeek(shown) {
  clearTimeout(shown.timer);
  shown.timer = 0;
  for (const part of shown.photo.querySelectorAll(".heat, .heat-key")) part.remove();
}

function update(shown, cell) {
  const { latest } = cell;
  const { gardner, confidence, assessment, ours } = verdict(cell);
  const wasNew = shown.sha256 === undefined;
  const sha256 = latest?.image ? latest.image_sha256 : null;
  if (sha256 !== shown.sha256) {
    shown.sha256 = sha256;
    shown.map = latest?.map && mapOf({ ...latest, model: { digest: latest.model_digest } }, "exp");
    const photo = photograph(latest, "", { loading: wasNew ? "lazy" : "eager" });
    // The old one stays until the new one is there: a wall that goes black by turns is hard to look at.
    const swap = () => {
      if (shown.sha256 !== sha256) return;
      shown.photo.replaceChildren(photo);
      if (shown.link.matches(":hover, :focus")) peek(shown);
    };
    if (wasNew || sha256 === null) swap();
    else photo.addEventListener("load", swap, { once: true });
  }
  const grade = gardner || "–";
  if (!wasNew && shown.grade.textContent !== grade) flash(shown.link);
  say(shown.grade, grade);
  shown.grade.classList.toggle("none", !gardner);
  shown.confidence.replaceChildren(
    ...(confidence === null || confidence === undefined ? [] : [unseen("confidence "), number(confidence)]),
  );
  shown.level.hidden = confidence === null || confidence === undefined;
  shown.level.firstElementChild.style.inlineSize = `${Math.round((confidence || 0) * 100)}%`;
  const { mark, text } = ASSESSMENTS[assessment];
  shown.badge.dataset.assessment = assessment;
  shown.badge.replaceChildren(
    el("span", { "aria-hidden": "true" }, mark), ` ${text}`, assessment === "amended" ? `, ours ${ours}` : "",
  );
  const doubted = latest?.status === "abstained";
  const doubts = [];
  if (latest?.untrained) doubts.push("untrained model: means nothing");
  if (doubted) doubts.push(`last photo: ${reasonsOf(latest)}`);
  shown.doubt.hidden = doubts.length === 0;
  shown.doubt.replaceChildren(...(doubts.length > 0 ? [el("span", { "aria-hidden": "true" }, "△ "), doubts.join("; ")] : []));
  shown.link.dataset.doubted = doubted;
  age(shown, cell);
}

function age({ when }, cell) {
  if (!cell?.latest) return say(when, "no photo lately");
  say(when, `${hpi(cell.latest.hpi)} · ${ago(cell.latest.graded_at)}`);
}

function flash(link) {
  link.classList.remove("changed");
  // Reading the layout starts the animation anew.
  link.getBoundingClientRect();
  link.classList.add("changed");
}

/** Arrow keys go to the cell that lies there. */
function step(event, root) {
  const [dx, dy] = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key] || [0, 0];
  const from = event.target.closest(".cell");
  if (!from || (dx === 0 && dy === 0)) return;
  const middle = (cell) => {
    const { left, top, width, height } = cell.getBoundingClientRect();
    return [left + width / 2, top + height / 2];
  };
  const [x, y] = middle(from);
  const distance = (cell) => {
    const [cx, cy] = middle(cell);
    const along = (cx - x) * dx + (cy - y) * dy;
    const across = Math.abs((cx - x) * dy) + Math.abs((cy - y) * dx);
    return along > 1 ? along + 3 * across : Infinity;
  };
  const best = [...root.querySelectorAll(".cell")].sort((one, other) => distance(one) - distance(other))[0];
  if (!best || distance(best) === Infinity) return;
  event.preventDefault();
  best.focus();
}
