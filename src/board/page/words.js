// What is said of grades, in words.

export const REASONS = {
  too_small: "too few pixels",
  underexposed: "too dark",
  overexposed: "too bright",
  low_contrast: "hardly any contrast",
  blurred: "out of focus",
  low_confidence: "model unsure",
  out_of_distribution: "unlike the training set",
};

export const ASSESSMENTS = {
  preliminary: { mark: "○", text: "preliminary" },
  final: { mark: "✓", text: "final" },
  amended: { mark: "✎", text: "amended" },
};

export const HEADS = {
  exp: { name: "Expansion (EXP)", classes: ["1", "2", "3", "4", "5", "6"] },
  icm: { name: "Inner cell mass (ICM)", classes: ["A", "B", "C"] },
  te: { name: "Trophectoderm (TE)", classes: ["A", "B", "C"] },
};

export const EXPANSIONS = {
  1: "cavity under half",
  2: "cavity half or more",
  3: "full blastocyst",
  4: "expanded, thin zona",
  5: "hatching",
  6: "hatched",
};

export const LETTERS = {
  icm: { A: "many cells, tightly packed", B: "several cells, loose", C: "very few cells" },
  te: { A: "many cells, cohesive", B: "few cells, loose", C: "very few large cells" },
};

export function reasonsOf(frame) {
  return frame.reasons.map((reason) => REASONS[reason] || reason).join(", ");
}

export function number(value, digits = 2) {
  return value === null || value === undefined ? "–" : value.toFixed(digits);
}

export function hpi(value) {
  return `${value.toFixed(1)} hpi`;
}

/** How long ago, in the largest unit that fits. */
export function ago(time, now = Date.now()) {
  const seconds = Math.max(0, Math.round((now - Date.parse(time)) / 1000));
  if (seconds < 60) return `${seconds} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 172800) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

/** Date and time as they are on every screen, whatever it is set to. */
export function utc(time) {
  return `${time.slice(0, 10)} ${time.slice(11, 19)} UTC`;
}

/** What is to be believed of an embryo: what a reviewer says, or all photographs together, or the last one. */
export function verdict(cell) {
  const { summary, latest } = cell;
  const assessment = summary?.assessment || "preliminary";
  if (summary?.review) {
    return {
      gardner: summary.review.gardner, confidence: null, assessment,
      ours: summary.gardner || "no grade", basis: `reviewed by ${summary.review.reviewer}`,
    };
  }
  if (summary) {
    const { graded, total } = summary.frames;
    return { gardner: summary.gardner, confidence: summary.confidence, assessment, basis: `${graded} of ${total} photos graded` };
  }
  return { gardner: latest?.gardner, confidence: latest?.confidence, assessment, basis: "last photo" };
}

/** Slide or dish. */
export function container(place) {
  return place.slide_id ? { kind: "Slide", id: place.slide_id } : { kind: "Dish", id: place.dish_id || "–" };
}
