// The page: which view is shown, the stream of events, the head line.

import { announce, el, say } from "./dom.js";
import { showEmbryo } from "./embryo.js";
import { showReview } from "./review.js";
import { Wall } from "./wall.js";

const main = document.getElementById("main");
const wall = new Wall();
let events = null;
let leave = () => {};
let opened = null;

/** While a reviewer must not see our grades, none come in. */
function listen(wanted) {
  if (!wanted) {
    events?.close();
    events = null;
    state("paused", "Paused while you review");
    return;
  }
  if (events) return;
  wall.forget();
  events = new EventSource("/api/events");
  events.addEventListener("open", () => {
    if (state("live", "Live") === "lost") announce("Connected again.");
  });
  events.addEventListener("error", () => {
    if (state("lost", "Connection lost: what you see is old") !== "lost") announce("Connection lost.");
  });
  events.addEventListener("wall", (event) => wall.take(JSON.parse(event.data)));
  events.addEventListener("standing", (event) => standing(JSON.parse(event.data)));
}

/** Returns what it was before. */
function state(now, text) {
  const link = document.getElementById("link");
  const before = link.dataset.state;
  link.dataset.state = now;
  say(document.getElementById("link-text"), text);
  return before;
}

const figures = new Map();

function standing(is) {
  const [worst] = is.dead_letters_by_code;
  const dead = worst ? `most: ${worst[0].replaceAll("_", " ")}` : "none";
  const shown = [
    ["Frames", is.frames_per_second.toFixed(1), "per second"],
    ["Grades", String(is.grades_per_minute), "in the last minute"],
    ["Waiting", is.lag_frames === null ? "–" : String(is.lag_frames), "frames before the graders"],
    ["Dead letters", String(is.dead_letters), dead, is.dead_letters > 0],
    ["Embryos", String(is.embryos), "on the wall"],
  ];
  if (is.unreadable > 0) shown.push(["Unreadable", String(is.unreadable), "records, see the log", true]);
  const list = document.getElementById("standing");
  for (const [name, value, unit, alarm] of shown) {
    if (!figures.has(name)) {
      const parts = [el("dt", {}, name), el("dd", { class: "value" }), el("dd", { class: "unit" })];
      list.append(el("div", {}, ...parts));
      figures.set(name, parts);
    }
    const [term, number, text] = figures.get(name);
    say(number, value);
    say(text, unit);
    term.parentElement.classList.toggle("alarm", Boolean(alarm));
  }
}

function show() {
  const [, view, encoded] = location.hash.match(/^#\/(embryo|review)\/(.+)$/) || [];
  leave();
  leave = () => {};
  if (view === "review") {
    listen(false);
    leave = showReview(main, decodeURIComponent(encoded));
  } else if (view === "embryo") {
    opened = decodeURIComponent(encoded);
    listen(true);
    leave = showEmbryo(main, opened, wall);
  } else {
    listen(true);
    leave = wall.show(main, opened);
    opened = null;
    return;
  }
  main.focus({ preventScroll: true });
  scrollTo(0, 0);
}

addEventListener("hashchange", show);

addEventListener("keydown", (event) => {
  if (event.key === "Escape" && /^#\/(embryo|review)\//.test(location.hash)) location.hash = "#/";
});

document.querySelector(".skip").addEventListener("click", (event) => {
  event.preventDefault();
  main.focus();
});

show();
