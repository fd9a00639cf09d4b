// Expansion over time: what all photographs of a time say, and each of them.

import { svg } from "./dom.js";
import { hpi } from "./words.js";

const HEIGHT = 260;
const LEFT = 48, RIGHT = 16, TOP = 14, BOTTOM = 46;

/** `trajectory` of a summary, `frames` of an embryo, the run of the frame that is looked at, and what to do with another. */
export function chart({ trajectory, frames, window: limits, selected, choose }) {
  // As high as fifteen letters on every screen, and as wide as it is.
  const letter = parseFloat(getComputedStyle(document.documentElement).fontSize);
  const width = Math.max(420, Math.round((HEIGHT * innerWidth) / (15.5 * letter)));
  const times = [...trajectory.map((it) => it.hpi), ...frames.map(({ frame }) => frame.hpi)];
  const from = Math.floor(Math.min(limits?.from_hpi ?? Infinity, ...times));
  const to = Math.max(Math.ceil(Math.max(limits?.to_hpi ?? -Infinity, ...times)), from + 1);
  const x = (time) => LEFT + ((time - from) / (to - from)) * (width - LEFT - RIGHT);
  const y = (expansion) => TOP + ((6 - expansion) / 5) * (HEIGHT - TOP - BOTTOM);

  const grid = [];
  for (let expansion = 1; expansion <= 6; expansion++) {
    grid.push(
      svg("line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(expansion), y2: y(expansion) }),
      svg("text", { class: "tick", x: LEFT - 10, y: y(expansion) + 5, "text-anchor": "end" }, String(expansion)),
    );
  }
  const every = Math.max(1, Math.ceil((to - from) / 10));
  for (let time = from; time <= to; time += every) {
    grid.push(svg("text", { class: "tick", x: x(time), y: HEIGHT - BOTTOM + 21, "text-anchor": "middle" }, String(time)));
  }
  grid.push(
    svg("text", { class: "axis", x: width - RIGHT, y: HEIGHT - 4, "text-anchor": "end" }, "hours post insemination"),
    svg("text", { class: "axis", x: LEFT - 32, y: TOP + 4, transform: `rotate(-90 ${LEFT - 32} ${TOP + 4})`, "text-anchor": "end" }, "expansion"),
  );
  const points = trajectory.map((it) => `${x(it.hpi).toFixed(1)},${y(it.expansion).toFixed(1)}`).join(" ");
  const marks = frames.map(({ frame }) => mark(frame, x(frame.hpi), y(expected(frame) ?? 1), frame.id === selected, choose));
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${HEIGHT}`, role: "img", "aria-label": inWords(trajectory) },
    grid, svg("polyline", { class: "trajectory", points }), marks);
}

/** The mean of the expansions, weighted by their probabilities. */
function expected(frame) {
  if (!frame.exp) return null;
  return Object.entries(frame.exp.probabilities).reduce((sum, [grade, p]) => sum + Number(grade) * p, 0);
}

/** A dot is a grade, a triangle a photograph without one. */
function mark(frame, cx, cy, selected, choose) {
  const onclick = () => choose(frame.id);
  const title = svg("title", {}, `${hpi(frame.hpi)}: ${frame.gardner || "not graded"}`);
  const shape = frame.status === "graded"
    ? svg("circle", { class: "graded", cx, cy, r: 6, onclick }, title)
    : svg("path", { class: "doubted", d: `M${cx} ${cy - 7} l7 12 h-14 z`, onclick }, title);
  return selected ? [svg("circle", { class: "selected", cx, cy, r: 11 }), shape] : [shape];
}

function inWords(trajectory) {
  if (trajectory.length === 0) return "Expansion over time: nothing is graded yet.";
  const said = (it) => `${it.expansion.toFixed(1)} at ${hpi(it.hpi)}`;
  const [first, last] = [trajectory[0], trajectory[trajectory.length - 1]];
  return `Expansion over time: from ${said(first)} to ${said(last)}, ${trajectory.length} times.`;
}
