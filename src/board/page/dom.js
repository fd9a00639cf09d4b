// Small helpers that make elements. Text is always text: nothing here takes markup.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** An HTML element: `el("p", { class: "note", onclick: run }, "text", other)`. */
export function el(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** The same of SVG. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

/** Words for whoever does not see the page. */
export function unseen(text) {
  return el("span", { class: "sr" }, text);
}

/** Sets a text, and touches the page only when it is another one. */
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** Says something to whoever listens to the page, politely. */
export function announce(text) {
  say(document.getElementById("said"), text);
}

/** Where a head of the model looked. */
export function mapOf(frame, head) {
  return `/api/maps/${frame.model.digest}/${frame.image_sha256}/${head}`;
}

/** The photograph of a frame, or what is made of it, or a place without one. */
export function photograph(frame, alt, attributes = {}, source = undefined) {
  if (!frame || !frame.image) {
    return el("div", { class: "photo none", ...attributes }, el("span", {}, source ? "cannot be shown" : "no photograph held"));
  }
  const image = el("img", {
    class: "photo", src: source || `/api/images/${frame.image_sha256}`, alt, width: 448, height: 448, decoding: "async", ...attributes,
  });
  // Forgotten meanwhile, or not to be read any more.
  image.addEventListener("error", () => image.replaceWith(photograph(null, "", attributes, source)), { once: true });
  return image;
}

/** Asks the board; an answer that is not fine is an error with its reason. */
export async function ask(path, options = {}) {
  const answer = await fetch(path, { headers: { accept: "application/json" }, ...options });
  const body = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(body.error || `the board answered ${answer.status}`);
  return body;
}
