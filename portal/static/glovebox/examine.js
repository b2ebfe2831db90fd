// The officer's page: draw boxes on either picture, move on by keyboard. Everything that is drawn
// is also a row of numbers in the form; the form alone is what is sent.
const pair = document.querySelector(".examined");
const form = document.getElementById("finding");
const rows = form?.querySelector(".boxes tbody");
const drawing = pair && form && "open" in pair.dataset;
const ticks = [...document.querySelectorAll("[name=wrong]")];
const SVG = "http://www.w3.org/2000/svg";
const names = ["x", "y", "width", "height"];

const inputs = (row) => names.map((name) => row.querySelector(`[name=box_${name}]`));
const values = (row) => inputs(row).map((input) => (input.value === "" ? NaN : Number(input.value)));

let moving = null; // the row whose box the arrow keys move

function show() {
  if (!pair) return;
  for (const group of pair.querySelectorAll(".drawn")) {
    group.replaceChildren();
    for (const row of rows?.children ?? []) {
      const box = values(row);
      if (box.some(Number.isNaN)) continue;
      const rect = document.createElementNS(SVG, "rect");
      names.forEach((name, place) => rect.setAttribute(name, box[place]));
      rect.classList.toggle("moving", row === moving);
      group.append(rect);
    }
  }
  const focused = document.activeElement?.dataset?.place;
  for (const rect of pair.querySelectorAll("rect.masked")) {
    rect.classList.toggle("wrong", Boolean(ticks[rect.dataset.place]?.checked));
    rect.classList.toggle("moving", rect.dataset.place === focused);
  }
}

function addRow(box) {
  const spare = [...rows.children].find((row) => values(row).every(Number.isNaN));
  const row = spare ?? document.getElementById("box-row").content.firstElementChild.cloneNode(true);
  if (!spare) rows.append(row);
  for (const button of row.querySelectorAll("[data-remove], [data-move]")) button.hidden = false;
  box?.forEach((value, place) => { inputs(row)[place].value = value; });
  show();
  return row;
}

function point(sheet, event) {
  const edge = sheet.getBoundingClientRect();
  const within = (value, most) => Math.round(Math.min(Math.max(value, 0), most));
  return [
    within(((event.clientX - edge.left) / edge.width) * Number(pair.dataset.width), Number(pair.dataset.width)),
    within(((event.clientY - edge.top) / edge.height) * Number(pair.dataset.height), Number(pair.dataset.height)),
  ];
}

// A click ticks the smallest masked box under it as wrong.
function tick(x, y) {
  const side = (rect, name) => Number(rect.getAttribute(name));
  const under = [...pair.querySelector(".overlay").querySelectorAll("rect.masked")].filter((rect) =>
    x >= side(rect, "x") && x <= side(rect, "x") + side(rect, "width") &&
    y >= side(rect, "y") && y <= side(rect, "y") + side(rect, "height"));
  under.sort((one, other) => side(one, "width") * side(one, "height") - side(other, "width") * side(other, "height"));
  ticks[under[0]?.dataset.place]?.click();
}

// Focus without leaving the picture, which shows what has the focus while it is in view.
function attend(element) {
  element?.focus({ preventScroll: pair.getBoundingClientRect().bottom > 0 });
}

// A new box in the middle of what is seen of the first picture, to be moved by the arrow keys.
function place() {
  const stage = pair.querySelector(".stage");
  const sheet = stage.querySelector(".sheet");
  const [width, height] = [Number(pair.dataset.width), Number(pair.dataset.height)];
  const scale = width / sheet.clientWidth;
  const [wide, tall] = [Math.max(2, Math.round(width / 8)), Math.max(2, Math.round(height / 16))];
  const middle = (from, seen, whole, size) =>
    Math.round(Math.min(Math.max((from + Math.min(seen, whole / scale) / 2) * scale - size / 2, 0), whole - size));
  const row = addRow([
    middle(stage.scrollLeft, stage.clientWidth, width, wide),
    middle(stage.scrollTop, stage.clientHeight, height, tall), wide, tall,
  ]);
  attend(row.querySelector("[data-move]"));
}

// Arrow keys on a row's button: move, with Shift grow or shrink, with Ctrl by ten pixels.
function move(row, event) {
  const arrows = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [1, -1], ArrowDown: [1, 1] };
  if (event.key === "Delete") { row.querySelector("[data-remove]").click(); return true; }
  if (event.key === "Escape") { event.target.blur(); return true; }
  if (!(event.key in arrows)) return false;
  const [axis, step] = arrows[event.key];
  const box = values(row);
  const most = [Number(pair.dataset.width), Number(pair.dataset.height)][axis];
  const by = step * (event.ctrlKey ? 10 : 1);
  if (event.shiftKey) box[axis + 2] = Math.min(Math.max(box[axis + 2] + by, 1), most - box[axis]);
  else box[axis] = Math.min(Math.max(box[axis] + by, 0), most - box[axis + 2]);
  inputs(row)[axis + (event.shiftKey ? 2 : 0)].value = box[axis + (event.shiftKey ? 2 : 0)];
  show();
  return true;
}

if (drawing) {
  for (const sheet of pair.querySelectorAll(".sheet")) {
    let start = null;
    let rect = null;
    const between = (end) => [
      Math.min(start[0], end[0]), Math.min(start[1], end[1]),
      Math.abs(start[0] - end[0]), Math.abs(start[1] - end[1]),
    ];
    sheet.addEventListener("pointerdown", (event) => {
      if (event.button !== 0) return;
      event.preventDefault();
      sheet.setPointerCapture(event.pointerId);
      start = point(sheet, event);
      rect = document.createElementNS(SVG, "rect");
      sheet.querySelector(".drawn").append(rect);
    });
    sheet.addEventListener("pointermove", (event) => {
      if (!start) return;
      between(point(sheet, event)).forEach((value, place) => rect.setAttribute(names[place], value));
    });
    sheet.addEventListener("pointerup", (event) => {
      if (!start) return;
      const box = between(point(sheet, event));
      start = null;
      rect.remove();
      if (box[2] > 1 && box[3] > 1) addRow(box);
      else tick(box[0], box[1]);
    });
    sheet.addEventListener("pointercancel", () => { start = null; rect?.remove(); });
  }
}

if (form) {
  const add = document.getElementById("add-box");
  add.hidden = false;
  add.addEventListener("click", () => (pair ? place() : inputs(addRow())[0].focus()));
  rows.addEventListener("keydown", (event) => {
    if (event.target.matches("[data-move]") && move(event.target.closest("tr"), event)) {
      event.preventDefault();
      event.stopPropagation();
    }
  });
  rows.addEventListener("focusin", (event) => {
    moving = event.target.matches("[data-move]") ? event.target.closest("tr") : null;
    show();
  });
  rows.addEventListener("focusout", () => { moving = null; show(); });
  rows.addEventListener("input", show);
  rows.addEventListener("click", (event) => {
    // Enter on the button that moves means that the box is where it should be.
    if (event.target.matches("[data-move]") && event.detail === 0) event.target.blur();
    if (event.target.matches("[data-move]") && event.detail > 0) event.target.focus();
    if (!event.target.matches("[data-remove]")) return;
    const row = event.target.closest("tr");
    if (rows.children.length > 1) row.remove();
    else inputs(row).forEach((input) => { input.value = ""; });
    show();
  });
  for (const button of rows.querySelectorAll("[data-remove]")) button.hidden = false;
  for (const row of rows.children) {
    row.querySelector("[data-move]").hidden = values(row).some(Number.isNaN);
  }
  for (const box of ticks) {
    for (const happening of ["change", "focus", "blur"]) box.addEventListener(happening, () => setTimeout(show));
  }
}

if (pair) {
  const actual = document.getElementById("actual");
  const masked = document.getElementById("show-masked");
  const told = document.getElementById("scale");
  const stages = [...pair.querySelectorAll(".stage")];
  const [width, height] = [Number(pair.dataset.width), Number(pair.dataset.height)];
  let factor = 1; // of the size that fits, or of the full size
  const fit = () => {
    for (const stage of stages) {
      const image = stage.querySelector("img");
      const base = actual.checked ? 1 : Math.min(stage.clientWidth / width, (0.58 * window.innerHeight) / height);
      const [across, down] = [
        (stage.scrollLeft + stage.clientWidth / 2) / stage.scrollWidth,
        (stage.scrollTop + stage.clientHeight / 2) / stage.scrollHeight,
      ];
      image.style.width = `${Math.floor(width * base * factor)}px`;
      // What was in the middle stays there.
      stage.scrollLeft = across * stage.scrollWidth - stage.clientWidth / 2;
      stage.scrollTop = down * stage.scrollHeight - stage.clientHeight / 2;
      told.value = `${Math.round(100 * base * factor)} %`;
    }
  };
  window.addEventListener("resize", fit);
  const apply = () => {
    pair.classList.toggle("actual", actual.checked || factor !== 1);
    fit();
    pair.classList.toggle("unmarked", !masked.checked);
    sessionStorage.setItem("examine.actual", actual.checked ? "1" : "");
  };
  actual.checked = sessionStorage.getItem("examine.actual") === "1";
  actual.addEventListener("change", () => { factor = 1; apply(); });
  masked.addEventListener("change", apply);
  for (const button of document.querySelectorAll("[data-zoom]")) {
    button.addEventListener("click", () => {
      factor = Math.min(Math.max(factor * (button.dataset.zoom === "in" ? 1.5 : 1 / 1.5), 0.2), 16);
      apply();
    });
  }
  apply();
  // Both pictures show the same place.
  for (const stage of stages) {
    stage.addEventListener("scroll", () => {
      for (const other of stages) {
        if (other !== stage) { other.scrollTop = stage.scrollTop; other.scrollLeft = stage.scrollLeft; }
      }
    });
  }
}
const frame = document.getElementById("frame");
frame?.addEventListener("change", () => {
  for (const image of pair.querySelectorAll("img")) {
    const address = new URL(image.src);
    if (frame.value) address.searchParams.set("frame", frame.value);
    else address.searchParams.delete("frame");
    image.src = address;
  }
});
function step(by) {
  if (!frame) return;
  const last = frame.options.length - 1;
  frame.selectedIndex = Math.min(Math.max(frame.selectedIndex + by, 0), last);
  frame.dispatchEvent(new Event("change"));
}
function nextTick() {
  const here = ticks.indexOf(document.activeElement);
  const next = ticks[(here + 1) % ticks.length];
  if (pair) attend(next);
  else next?.focus();
}
const help = document.getElementById("help");
document.getElementById("help-button")?.addEventListener("click", () => help.showModal());
show();

// Single keys can be turned off: people who speak to their computer would press them by accident.
const keys = document.getElementById("keys");
if (keys) {
  keys.checked = localStorage.getItem("examine.keys") !== "off";
  keys.addEventListener("change", () => localStorage.setItem("examine.keys", keys.checked ? "on" : "off"));
}
const acts = {
  n: () => document.getElementById("next")?.click(),
  p: () => document.getElementById("previous")?.click(),
  f: () => document.getElementById("actual")?.click(),
  "+": () => document.querySelector("[data-zoom=in]")?.click(),
  "-": () => document.querySelector("[data-zoom=out]")?.click(),
  b: () => document.getElementById("add-box")?.click(),
  k: nextTick,
  ",": () => step(-1),
  ".": () => step(1),
  "?": () => help?.showModal(),
};
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || (keys && !keys.checked)) return;
  if (help?.open || event.target.matches("input:not([type=checkbox]), textarea, select")) return;
  if (event.key in acts) {
    event.preventDefault();
    acts[event.key]();
  } else if (form && event.key.length === 1 && "cmrwx".includes(event.key)) {
    const button = form.querySelector(`[data-key=${event.key}]`);
    if (!button.hidden) button.click();
  }
});
