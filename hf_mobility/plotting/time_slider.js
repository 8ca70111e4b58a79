// Shows lines of a Leaflet map as far as they have come at the time of a slider; `maps.map_trajectories` calls it.
// box: element with a button, a range input and an output; lines: [{line, times}], seconds of the wall clock.
function timeSlider(box, lines) {
  const button = box.querySelector("button"), slider = box.querySelector("input"), clock = box.querySelector("output");
  const first = Math.min(...lines.map((one) => one.times[0]));
  const last = Math.max(...lines.map((one) => one.times[one.times.length - 1]));
  const paths = lines.map((one) => one.line.getLatLngs().slice());
  const heads = lines.map((one) =>
    L.circleMarker(one.line.getLatLngs()[0], { className: "now", radius: 6, weight: 2, color: "#ffffff", fillColor: one.line.options.color, fillOpacity: 1, interactive: false }));
  let timer = null;

  // Where a line is at a time, and how many of its rows lie before that.
  function position(path, times, now) {
    let row = times.findIndex((time) => time > now);
    if (row === -1) return [path[path.length - 1], path.length];
    if (row === 0) return [null, 0];
    const share = (now - times[row - 1]) / (times[row] - times[row - 1]), from = path[row - 1], to = path[row];
    return [L.latLng(from.lat + share * (to.lat - from.lat), from.lng + share * (to.lng - from.lng)), row];
  }

  function show() {
    const share = Number(slider.value) / Number(slider.max), now = first + share * (last - first);
    clock.textContent = new Date(1000 * now).toUTCString().replace(/:\d\d GMT$/, "");
    lines.forEach((one, index) => {
      const [here, rows] = position(paths[index], one.times, now);
      one.line.setLatLngs(rows === paths[index].length ? paths[index] : here ? [...paths[index].slice(0, rows), here] : []);
      if (here && share < 1) heads[index].setLatLng(here).addTo(one.line._map);
      else heads[index].remove();
    });
  }

  function play(on) {
    clearInterval(timer);
    button.textContent = on ? "❚❚" : "▶";
    timer = on ? setInterval(() => { slider.value = Number(slider.value) + 2; show(); if (slider.value === slider.max) play(false); }, 60) : null;
  }

  slider.addEventListener("input", () => { play(false); show(); });
  button.addEventListener("click", () => {
    if (slider.value === slider.max) slider.value = 0;
    play(timer === null);
  });
  show();
}
