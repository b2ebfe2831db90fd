// Runs in a page; returns what is wrong with it. Contrast by WCAG 2.2, 1.4.3.
const faults = [];
const name = (e) => `${e.tagName.toLowerCase()}${e.id ? "#" + e.id : ""} ${(e.textContent || "").trim().slice(0, 40)}`;
const shown = (e) => e.checkVisibility({checkVisibilityCSS: true}) && e.getClientRects().length;
if (!document.documentElement.lang) faults.push("no language");
if (!document.title.trim()) faults.push("no title");
if (document.querySelectorAll("h1").length !== 1) faults.push("not one h1");
if (document.querySelectorAll("main").length !== 1) faults.push("not one main");
const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
for (const id of new Set(ids.filter((id, place) => ids.indexOf(id) !== place))) faults.push(`id twice: ${id}`);
for (const e of document.querySelectorAll("input:not([type=hidden]), select, textarea"))
  if (shown(e) && !e.labels?.length && !e.getAttribute("aria-label")) faults.push(`no label: ${name(e)} ${e.name}`);
for (const e of document.querySelectorAll("button, a[href], summary"))
  if (shown(e) && !e.textContent.trim() && !e.getAttribute("aria-label")) faults.push(`says nothing: ${e.outerHTML.slice(0, 80)}`);
for (const e of document.querySelectorAll("img")) if (!e.hasAttribute("alt")) faults.push(`no alt: ${e.src}`);
for (const e of document.querySelectorAll("[aria-labelledby], [aria-describedby]"))
  for (const id of `${e.getAttribute("aria-labelledby") ?? ""} ${e.getAttribute("aria-describedby") ?? ""}`.split(/\s+/))
    if (id && !document.getElementById(id)) faults.push(`points nowhere: ${id}`);
for (const e of document.querySelectorAll("[tabindex]")) if (e.tabIndex > 0) faults.push(`order forced: ${name(e)}`);
let level = 0;
for (const e of document.querySelectorAll("h1, h2, h3, h4")) {
  const now = Number(e.tagName[1]);
  if (now > level + 1) faults.push(`heading skipped: ${name(e)}`);
  level = now;
}
const parse = (text) => {
  const parts = text.match(/[\d.]+/g).map(Number);
  return text.startsWith("color(") ? [...parts.slice(0, 3).map((v) => v * 255), parts[3] ?? 1] : [...parts.slice(0, 3), parts[3] ?? 1];
};
const over = (top, under) => [0, 1, 2].map((i) => top[i] * top[3] + under[i] * (1 - top[3])).concat(1);
const ground = (e) => {
  const layers = [];
  for (let at = e; at; at = at.parentElement) layers.push(parse(getComputedStyle(at).backgroundColor));
  return layers.reverse().reduce((under, top) => over(top, under), [255, 255, 255, 1]);
};
const light = (c) => {
  const [r, g, b] = c.map((v) => { v /= 255; return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
while (walker.nextNode()) {
  const e = walker.currentNode.parentElement;
  if (!walker.currentNode.textContent.trim() || !shown(e) || e.closest("svg, [disabled], .hidden-text, .skip, option")) continue;
  const style = getComputedStyle(e);
  const under = ground(e);
  const [a, b] = [light(over(parse(style.color), under)), light(under)];
  const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
  const large = parseFloat(style.fontSize) >= 24 || (parseFloat(style.fontSize) >= 18.66 && style.fontWeight >= 700);
  if (ratio < (large ? 3 : 4.5)) faults.push(`contrast ${ratio.toFixed(2)}: ${name(e)}`);
}
const width = arguments[0];
if (document.documentElement.scrollWidth > width + 1)
  faults.push(`the page is ${document.documentElement.scrollWidth} wide, the window ${width}`);
for (const e of document.querySelectorAll("main *"))
  if (shown(e) && !e.parentElement.closest(".scroll, .stage, .log, svg") && e.getBoundingClientRect().right > width + 1)
    faults.push(`beyond ${width}: ${name(e)} ${e.className}`);
return faults;
