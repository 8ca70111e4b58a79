// The maps of the page, drawn by Leaflet from what scene.py says. Nothing is asked of other servers unless a visitor
// ticks the street map.
const TILES = "https://tile.openstreetmap.org/{z}/{x}/{y}.png";
const THANKS = '&copy; <a href="https://www.openstreetmap.org/copyright">OpenStreetMap</a> contributors';
const COAST = "coast: Natural Earth";
const RED = "#d55e00", ORANGE = "#e69f00";
const DAYS = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
const blue = () => (document.querySelector(".dark") ? "#56b4e9" : "#0072b2");

// A node that holds text and nothing else: names in uploaded files are no HTML.
function say(text) {
  const node = document.createElement("span");
  node.textContent = text;
  return node;
}

// A map that keeps its view until `fit` is called, also while it is hidden in a tab.
function newMap(element) {
  const box = element.querySelector(".map");
  const map = L.map(box, { zoomSnap: 0.25, maxZoom: 19, center: [0, 0], zoom: 2 });
  map.attributionControl.setPrefix(false);
  L.control.scale({ imperial: false }).addTo(map);
  map.createPane("land").style.zIndex = 150; // below tiles
  map.createPane("marks").style.zIndex = 450; // above the places
  let wanted = null;
  const settle = () => {
    map.invalidateSize();
    if (wanted && map.getSize().x > 0) { map.fitBounds(wanted, { padding: [24, 24], maxZoom: 16, animate: false }); wanted = null; }
  };
  new ResizeObserver(settle).observe(box);
  const street = element.querySelector(".street"), tiles = L.tileLayer(TILES, { maxZoom: 19, attribution: THANKS });
  street.addEventListener("change", () => (street.checked ? tiles.addTo(map) : tiles.remove()));
  return { map, fit: (bounds) => { wanted = bounds; settle(); } };
}

function sign(where, text, kind, size, right = 0, down = 0) {
  const anchor = [size / 2 - right, size / 2 - down];
  const icon = L.divIcon({ html: say(text), className: kind, iconSize: [size, size], iconAnchor: anchor });
  return L.marker(where, { icon, pane: "marks", interactive: false, keyboard: false });
}

const ringRadius = (probability) => 8 + 22 * Math.sqrt(probability);

// ------------------------------------------------------------------------------------------------ where next?

function placesMap(element, props, watch, trigger) {
  const { map, fit } = newMap(element), canvas = L.canvas({ tolerance: 4 });
  const land = L.layerGroup().addTo(map), places = L.layerGroup().addTo(map), marks = L.layerGroup().addTo(map);
  const ranks = L.layerGroup().addTo(map);
  let shown = null;

  function drawTown() {
    const town = props.town;
    if (!town || (shown && town.key === shown.key)) return;
    shown = town;
    [land, places, marks].forEach((group) => group.clearLayers());
    map.getContainer().classList.toggle("has-land", town.land.length > 0);
    map.attributionControl[town.land.length ? "addAttribution" : "removeAttribution"](COAST);
    town.land.forEach((ring) => L.polygon(ring, { className: "land", pane: "land", fillOpacity: 1, interactive: false }).addTo(land));
    const grey = getComputedStyle(element.querySelector(".map")).getPropertyValue("--place").trim() || "#8b929a";
    const look = { renderer: canvas, radius: 4, stroke: false, fillColor: grey, fillOpacity: 0.9 };
    town.places.forEach(([lat, lon, text]) => L.circleMarker([lat, lon], look).bindTooltip(() => say(text)).addTo(places));
    fit(town.box);
  }

  function drawMarks() {
    const scene = props.value || {};
    marks.clearLayers();
    element.querySelector(".map-title").textContent = scene.title || "";
    const dot = (lat, lon, text, look) =>
      L.circleMarker([lat, lon], { pane: "marks", ...look }).bindTooltip(say(text)).addTo(marks);
    if (scene.way) L.polyline(scene.way, { pane: "marks", color: blue(), weight: 2, opacity: 0.6, dashArray: "4 5", interactive: false }).addTo(marks);
    (scene.visited || []).forEach(([lat, lon, visits, text]) =>
      dot(lat, lon, text, { className: "visited", radius: Math.min(3 + 1.5 * Math.sqrt(visits), 14), stroke: false, fillColor: blue(), fillOpacity: 0.65 }));
    [...(scene.guesses || [])].reverse().forEach(([lat, lon, probability, rank, text]) => {
      dot(lat, lon, text, { className: "guess", radius: ringRadius(probability), color: RED, weight: 3, fillOpacity: 0.04, fillColor: RED });
    });
    drawRanks();
    if (scene.here) sign(scene.here, "✕", "sign here", 22).addTo(marks);
    if (scene.truth) sign(scene.truth, "★", "sign went", 26).addTo(marks);
  }

  // Each rank stands outside its ring, above it where no other rank stands there.
  function drawRanks() {
    ranks.clearLayers();
    const taken = [];
    ((props.value || {}).guesses || []).forEach(([lat, lon, probability, rank]) => {
      const middle = map.latLngToContainerPoint([lat, lon]), far = ringRadius(probability) + 9;
      const spots = [-90, -40, 220, 0, 180, 45, 135, 90].map((angle) => [far * Math.cos(angle * Math.PI / 180), far * Math.sin(angle * Math.PI / 180)]);
      const spot = spots.find(([x, y]) => taken.every((other) => other.distanceTo(middle.add([x, y])) > 15)) || spots[0];
      taken.push(middle.add(spot));
      sign([lat, lon], rank, "rank", 16, ...spot).addTo(ranks);
    });
  }

  // A click means the place that is nearest on the screen, so that a thumb need not hit a dot.
  map.on("click", (event) => {
    const at = map.latLngToContainerPoint(event.latlng);
    const far = shown.places.map(([lat, lon]) => at.distanceTo(map.latLngToContainerPoint([lat, lon])));
    trigger("click", { place: far.indexOf(Math.min(...far)) });
  });
  map.on("zoomend", drawRanks);
  watch(["town", "value"], () => { drawTown(); drawMarks(); });
  drawTown();
  drawMarks();
  element.leaflet = map; // for tests
}

// ------------------------------------------------------------------------------------------------ a week

function weeksMap(element, props, watch) {
  const { map, fit } = newMap(element), layer = L.layerGroup().addTo(map);
  const slider = element.querySelector("input[type=range]"), button = element.querySelector("button");
  let timer = null;

  function drawHour() {
    const weeks = props.value;
    layer.clearLayers();
    if (!weeks || !weeks.cells) return;
    const hour = Number(slider.value), users = new Map();
    let moved = 0;
    const at = (cell) => [weeks.lat[cell], weeks.lon[cell]];
    weeks.cells.forEach((row) => {
      const now = row[hour], before = row[Math.max(hour - 1, 0)];
      users.set(now, (users.get(now) || 0) + 1);
      if (now === before) return;
      moved += 1;
      L.polyline([at(before), at(now)], { className: "moved", color: ORANGE, weight: 2, opacity: 0.8, interactive: false }).addTo(layer);
    });
    users.forEach((number, cell) =>
      L.circleMarker(at(cell), { className: "users", radius: 3 + 2.5 * Math.sqrt(number), weight: 1, color: "#fff", fillColor: blue(), fillOpacity: 0.75 })
        .bindTooltip(say(`${number} ${number > 1 ? "users" : "user"}`)).addTo(layer));
    const clock = `${DAYS[Math.floor(hour / 24) % 7]} ${String(hour % 24).padStart(2, "0")}:00`;
    slider.setAttribute("aria-valuetext", clock);
    element.querySelector(".map-title").textContent = `${clock}: ${moved} of ${weeks.cells.length} users have moved within the hour`;
  }

  function play(on) {
    clearInterval(timer);
    timer = on ? setInterval(() => { if (element.offsetParent) { slider.value = (Number(slider.value) + 1) % 168; drawHour(); } }, 700) : null;
    button.textContent = on ? "❚❚ Pause" : "▶ Play";
  }

  function start() {
    if (!props.value || !props.value.cells) return;
    slider.value = 8; // Monday, 8 h
    fit(props.value.box);
    drawHour();
    play(!matchMedia("(prefers-reduced-motion: reduce)").matches);
  }

  slider.addEventListener("input", () => { play(false); drawHour(); });
  button.addEventListener("click", () => play(timer === null));
  watch("value", start);
  start();
  element.leaflet = map; // for tests
}
