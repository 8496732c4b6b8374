"use strict";
const byId = id => document.getElementById(id);
const data = JSON.parse(byId("data").textContent);
// An image is [set, class, difficulty or null, file name, address]; the first two are positions in data.sets and data.classes.
const SET = 0, CLASS = 1, DIFFICULTY = 2, NAME = 3, ADDRESS = 4;
const defaults = { set: "0", class: "", sort: "easy", from: "0", to: "1" };
let shown = [], viewed = 0;

function make(tag, properties, ...children) {
  const node = Object.assign(document.createElement(tag), properties);
  node.append(...children);
  return node;
}

function color(difficulty) {
  const place = Math.min(difficulty, 0.999) * (data.ramp.length - 1), k = Math.floor(place), part = place - k;
  return "rgb(" + data.ramp[k].map((low, i) => Math.round(low + part * (data.ramp[k + 1][i] - low))).join() + ")";
}

function intervals() { return data.sets[+byId("set").value].intervals; }
function interval(image) {
  let k = intervals() - 1;
  while (k > 0 && image[DIFFICULTY] < k / intervals()) k -= 1;
  return k;
}
function within(image) {
  const from = +byId("from").value, to = +byId("to").value;
  return image[DIFFICULTY] === null || (image[DIFFICULTY] >= from && (image[DIFFICULTY] < to || to === 1));
}
function chosen(image) {
  return image[SET] === +byId("set").value && (byId("class").value === "" || image[CLASS] === +byId("class").value);
}
const orders = {
  easy: (a, b) => a[DIFFICULTY] - b[DIFFICULTY],
  hard: (a, b) => b[DIFFICULTY] - a[DIFFICULTY],
  class: (a, b) => a[CLASS] - b[CLASS] || a[DIFFICULTY] - b[DIFFICULTY],
};

function tile(image, position) {
  const name = data.classes[image[CLASS]], scored = image[DIFFICULTY] !== null;
  const bar = make("i", {});
  if (scored) { bar.style.width = 100 * image[DIFFICULTY] + "%"; bar.style.background = color(image[DIFFICULTY]); }
  const picture = make("img", { src: image[ADDRESS], alt: "", loading: "lazy", className: data.pixels ? "pixels" : "" });
  const button = make("button", { type: "button", className: "tile", tabIndex: position ? -1 : 0, onclick: () => view(position) },
    picture, make("span", { className: "bar" }, bar), make("b", { textContent: name }), scored ? image[DIFFICULTY].toFixed(3) : "not scored");
  button.dataset.class = name;
  button.dataset.difficulty = scored ? image[DIFFICULTY] : "";
  return make("li", {}, button);
}

function update() {
  const candidates = data.images.filter(chosen), set = data.sets[+byId("set").value];
  shown = candidates.filter(within).sort(orders[byId("sort").value]);
  byId("tiles").replaceChildren(...shown.map(tile));
  const part = set.total > set.shown ? " The page holds " + set.shown + " of the set's " + set.total + " images." : "";
  byId("count").textContent = shown.length + " of " + candidates.length + " images." + part;
  for (const id of ["from", "to"]) byId(id + "-value").textContent = (+byId(id).value).toFixed(2);
  const total = intervals(), counts = Array(total).fill(0), digits = total === 10 ? 1 : 2;
  candidates.forEach(image => { if (image[DIFFICULTY] !== null) counts[interval(image)] += 1; });
  byId("intervals").replaceChildren(...counts.map((count, k) => {
    const bar = make("span", {});
    bar.style.height = count ? Math.max(4, 100 * count / Math.max(...counts)) + "%" : "0";
    bar.style.background = color((k + .5) / total);
    const text = (k / total).toFixed(digits) + " to " + ((k + 1) / total).toFixed(digits) + ": " + count + " images";
    return make("button", { type: "button", title: text, ariaLabel: text, onclick: () => limit(k) }, bar);
  }));
  const state = Object.keys(defaults).filter(id => byId(id).value !== defaults[id]).map(id => id + "=" + byId(id).value).join("&");
  try { history.replaceState(null, "", state ? "#" + state : location.pathname + location.search); } catch (error) { /* a page without an address */ }
}

function limit(k) {
  byId("from").value = k / intervals();
  byId("to").value = (k + 1) / intervals();
  update();
  byId("intervals").children[k].focus();
}

function restore() {
  const wanted = Object.fromEntries(new URLSearchParams(location.hash.slice(1)));
  for (const id of Object.keys(defaults)) {
    byId(id).value = id in wanted ? wanted[id] : defaults[id];
    if (byId(id).value === "" && id !== "class") byId(id).value = defaults[id];
  }
}

function view(position) {
  viewed = position;
  const image = shown[position];
  const difficulty = image[DIFFICULTY] === null ? "not scored" : "difficulty " + image[DIFFICULTY].toFixed(4);
  enlarge(image[ADDRESS], data.classes[image[CLASS]] + ", " + difficulty + " (" + image[NAME] + ")", data.pixels);
  byId("previous").hidden = byId("next").hidden = false;
}

function enlarge(address, text, pixels) {
  byId("viewer-image").src = address;
  byId("viewer-image").className = pixels ? "pixels" : "";
  byId("viewer-text").textContent = text;
  byId("previous").hidden = byId("next").hidden = true;
  if (!byId("viewer").open) byId("viewer").showModal();
}

function turn(step) {
  if (!byId("next").hidden) view((viewed + step + shown.length) % shown.length);
}

function focusTile(tiles, position) {
  tiles.forEach((tile, k) => { tile.tabIndex = k === position ? 0 : -1; });
  tiles[position].focus();
}

function move(event) {
  const tiles = [...document.querySelectorAll(".tile")], here = tiles.indexOf(document.activeElement);
  const columns = tiles.filter(other => other.offsetTop === tiles[0].offsetTop).length;
  const step = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -columns, ArrowDown: columns, Home: -here, End: tiles.length - 1 - here }[event.key];
  if (here < 0 || step === undefined || !tiles[here + step]) return;
  event.preventDefault();
  focusTile(tiles, here + step);
}

function setTheme(dark) {
  document.documentElement.dataset.theme = dark ? "dark" : "light";
  byId("theme").setAttribute("aria-pressed", dark);
}

const preference = matchMedia("(prefers-color-scheme: dark)");
preference.addEventListener("change", event => setTheme(event.matches));
byId("theme").onclick = () => setTheme(document.documentElement.dataset.theme !== "dark");
setTheme(preference.matches);
document.querySelectorAll(".enlarge").forEach(button => {
  button.onclick = () => enlarge(button.firstElementChild.src, button.nextElementSibling.textContent, false);
});
if (data.sets.length) {
  byId("set").append(...data.sets.map((set, k) => make("option", { value: k, textContent: set.name })));
  byId("class").append(make("option", { value: "", textContent: "all" }), ...data.classes.map((name, k) => make("option", { value: k, textContent: name })));
  restore();
  for (const id of Object.keys(defaults)) byId(id).addEventListener("input", update);
  addEventListener("hashchange", () => { restore(); update(); });
  byId("reset").onclick = () => { Object.keys(defaults).forEach(id => { if (id !== "set") byId(id).value = defaults[id]; }); update(); };
  byId("tiles").addEventListener("keydown", move);
  byId("previous").onclick = () => turn(-1);
  byId("next").onclick = () => turn(1);
  byId("viewer").addEventListener("keydown", event => {
    if (event.key === "ArrowLeft" || event.key === "ArrowRight") turn(event.key === "ArrowRight" ? 1 : -1);
  });
  byId("viewer").addEventListener("close", () => {
    if (!byId("next").hidden) focusTile([...document.querySelectorAll(".tile")], viewed);
  });
  update();
} else {
  byId("gallery").hidden = true;
}
