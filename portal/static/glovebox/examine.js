// The officer's page: draw boxes on either picture, move on by keyboard. Everything that is drawn
// is also a row of numbers in the form; the form alone is what is sent.
const pair = document.querySelector(".examined");
const form = document.getElementById("finding");
const rows = form?.querySelector(".boxes tbody");
const drawing = pair && form && "open" in pair.dataset;
const SVG = "http://www.w3.org/2000/svg";
const names = ["x", "y", "width", "height"];

const inputs = (row) => names.map((name) => row.querySelector(`[name=box_${name}]`));
const values = (row) => inputs(row).map((input) => (input.value === "" ? NaN : Number(input.value)));

function show() {
  if (!pair) return;
  for (const group of pair.querySelectorAll(".drawn")) {
    group.replaceChildren();
    for (const row of rows?.children ?? []) {
      const box = values(row);
      if (box.some(Number.isNaN)) continue;
      const rect = document.createElementNS(SVG, "rect");
      names.forEach((name, place) => rect.setAttribute(name, box[place]));
      group.append(rect);
    }
  }
}

function addRow(box) {
  const spare = [...rows.children].find((row) => values(row).every(Number.isNaN));
  const row = spare ?? document.getElementById("box-row").content.firstElementChild.cloneNode(true);
  if (!spare) rows.append(row);
  row.querySelector("[data-remove]").hidden = false;
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
    });
    sheet.addEventListener("pointercancel", () => { start = null; rect?.remove(); });
  }
}

if (form) {
  const add = document.getElementById("add-box");
  add.hidden = false;
  add.addEventListener("click", () => inputs(addRow())[0].focus());
  rows.addEventListener("input", show);
  rows.addEventListener("click", (event) => {
    if (!event.target.matches("[data-remove]")) return;
    const row = event.target.closest("tr");
    if (rows.children.length > 1) row.remove();
    else inputs(row).forEach((input) => { input.value = ""; });
    show();
  });
  for (const row of rows.children) row.querySelector("[data-remove]").hidden = false;
}

if (pair) {
  const actual = document.getElementById("actual");
  const masked = document.getElementById("show-masked");
  const fit = () => {
    const [width, height] = [Number(pair.dataset.width), Number(pair.dataset.height)];
    for (const image of pair.querySelectorAll("img")) {
      const room = image.closest(".stage").clientWidth;
      const scale = Math.min(room / width, (0.58 * window.innerHeight) / height);
      image.style.width = actual.checked ? `${width}px` : `${Math.floor(width * scale)}px`;
    }
  };
  window.addEventListener("resize", fit);
  const apply = () => {
    pair.classList.toggle("actual", actual.checked);
    fit();
    pair.classList.toggle("unmarked", !masked.checked);
    sessionStorage.setItem("examine.actual", actual.checked ? "1" : "");
  };
  actual.checked = sessionStorage.getItem("examine.actual") === "1";
  actual.addEventListener("change", apply);
  masked.addEventListener("change", apply);
  apply();
  // Both pictures show the same place.
  const stages = [...pair.querySelectorAll(".stage")];
  for (const stage of stages) {
    stage.addEventListener("scroll", () => {
      for (const other of stages) {
        if (other !== stage) { other.scrollTop = stage.scrollTop; other.scrollLeft = stage.scrollLeft; }
      }
    });
  }
}
show();

// Single keys can be turned off: people who speak to their computer would press them by accident.
const keys = document.getElementById("keys");
if (keys) {
  keys.checked = localStorage.getItem("examine.keys") !== "off";
  keys.addEventListener("change", () => localStorage.setItem("examine.keys", keys.checked ? "on" : "off"));
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.altKey || event.metaKey || (keys && !keys.checked)) return;
  if (event.target.matches("input:not([type=checkbox]), textarea, select")) return;
  const links = { n: "next", p: "previous" };
  if (event.key in links) document.getElementById(links[event.key])?.click();
  else if (event.key === "f") document.getElementById("actual")?.click();
  else if (form && "cmx".includes(event.key)) form.querySelector(`[data-key=${event.key}]`).click();
});
