// The page's own script: colours of the theme, filters by client and by round, sorting, live reload.
// Texts of clients reach the page through textContent, or through plain() where Plotly reads tags.
"use strict";
(() => {
  const root = document.documentElement;
  const byId = (id) => document.getElementById(id);
  const page = JSON.parse(byId("page-data").textContent);
  const cells = page.cells;
  const state = { from: page.rounds[0], to: page.rounds[1], clients: [], theme: "auto" };
  const printWidth = 660; // CSS pixels that fit a printed page, A4 or Letter
  let printing = false;
  let drawing = false;
  const due = new Set(); // figures to draw

  // --- cells: the columns hold one client after the other
  const place = new Map(cells.ids.map((id, i) => [id, i]));
  const starts = [0];
  for (const size of cells.sizes) starts.push(starts.at(-1) + size);
  const nameOf = (id) => cells.names[place.get(id)];
  const inRange = (round) => round > state.from - 1 && round <= state.to;
  const plain = (text) => text.replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

  function* cellsOf(id) {
    const i = place.get(id);
    for (let k = starts[i]; k < starts[i + 1]; k++) if (inRange(cells.rounds[k])) yield k;
  }

  // --- colours: "@ink" is the variable --ink of the style sheet
  function painted(value, key) {
    if (key === "colorscale") return value.map(([at, name]) => [at, name[0] === "@" ? colour(name) : name]);
    if (Array.isArray(value)) {
      const inside = value[0] && typeof value[0] === "object" && !Array.isArray(value[0]);
      return inside || /color$/i.test(key) ? value.map((item) => painted(item, key)) : value;
    }
    if (value && typeof value === "object") {
      return Object.fromEntries(Object.entries(value).map(([k, v]) => [k, painted(v, k)]));
    }
    return typeof value === "string" && value[0] === "@" && /color$/i.test(key) ? colour(value) : value;
  }
  const colour = (name) => getComputedStyle(root).getPropertyValue("--" + name.slice(1)).trim();
  const dark = matchMedia("(prefers-color-scheme: dark)");
  function showTheme() {
    const wanted = state.theme === "auto" ? (dark.matches ? "dark" : "light") : state.theme;
    root.dataset.theme = printing ? "light" : wanted;
    const button = byId("theme");
    if (button) button.textContent = { auto: "Theme: auto", light: "Theme: light", dark: "Theme: dark" }[state.theme];
  }

  // --- figures
  function roundsTrace(trace) {
    const kept = trace.x.map((x, i) => (inRange(x) ? i : -1)).filter((i) => i >= 0);
    const pick = ([key, value]) =>
      [key, Array.isArray(value) && value.length === trace.x.length ? kept.map((i) => value[i]) : value];
    return Object.fromEntries(Object.entries(trace).map(pick));
  }

  function ownLine(id, [column, at], number) {
    const x = [], y = [];
    for (const k of cellsOf(id)) {
      const round = cells.rounds[k];
      if (column === "histories") {
        const history = cells.histories[at][k] || [];
        history.forEach((value, i) => { x.push(round - 1 + (i + 1) / history.length); y.push(value); });
        x.push(round); y.push(null); // a gap: the next round starts from another model
      } else {
        x.push(round);
        if (column === "seconds") y.push(cells.seconds[k]);
        else if (column === "numbers") y.push(cells.numbers[at][k]);
        else y.push({ 1: 100, 0: 0 }[cells.booleans[at][k]] ?? null);
      }
    }
    const color = ["@ink", "@red", "@brown", "@cyan"][number % 4];
    return {
      type: "scatter", mode: "lines+markers", x, y, name: plain(nameOf(id)), line: { color, width: 1.5 },
      marker: { color, size: 5 }, hovertemplate: "%{y}",
    };
  }

  function clientTicks(ids, axis) {
    const step = Math.ceil(ids.length / (axis === "y" ? 50 : 24));
    const shown = ids.map((_, i) => i).filter((i) => i % step === 0);
    return { tickmode: "array", tickvals: shown, ticktext: shown.map((i) => plain(nameOf(ids[i]).slice(0, 18))) };
  }

  function mapFigure(figure) {
    const ids = state.clients.length ? state.clients : page.drawn;
    const first = Math.max(state.from, 1);
    const rounds = Array.from({ length: Math.max(0, state.to - first + 1) }, (_, i) => first + i);
    const z = ids.map(() => rounds.map(() => null));
    const text = ids.map(() => rounds.map(() => ""));
    ids.forEach((id, row) => {
      for (const k of cellsOf(id)) {
        const column = cells.rounds[k] - first;
        const at = page.states.findIndex((s) => s.code === cells.states[k]);
        const seconds = cells.seconds[k] === null ? "" : `, ${cells.seconds[k]} s`;
        z[row][column] = at;
        text[row][column] = `${plain(nameOf(id))}, round ${cells.rounds[k]}: ${page.states[at].word}${seconds}`;
      }
    });
    const count = page.states.length;
    const colorscale = page.states.flatMap((s, i) => [[i / count, colour(s.color)], [(i + 1) / count, colour(s.color)]]);
    const gap = rounds.length > 150 ? 0 : 1;
    const trace = {
      type: "heatmap", x: rounds, y: ids.map((_, i) => i), z, text, zmin: -0.5, zmax: count - 0.5, colorscale,
      showscale: false, xgap: gap, ygap: ids.length > 80 ? 0.5 : 1, hoverongaps: false, hovertemplate: "%{text}<extra></extra>",
    };
    const height = Math.min(1100, Math.max(180, 90 + ids.length * (ids.length > 60 ? 9 : 18)));
    const layout = { ...figure.layout, height, plot_bgcolor: colour("@empty") };
    layout.yaxis = { ...layout.yaxis, ...clientTicks(ids, "y") };
    layout.xaxis = { ...layout.xaxis, dtick: wholeStep(rounds.length / 10) };
    return { data: [trace], layout };
  }

  function clientsFigure(figure) {
    const ids = state.clients.length ? state.clients : page.drawn;
    const x = ids.map((_, i) => i);
    const names = ids.map((id) => plain(nameOf(id)));
    const bar = (y, name, color, hovertemplate) =>
      ({ type: "bar", x, y, name, text: names, textposition: "none", marker: { color }, hovertemplate });
    const layout = { ...figure.layout, xaxis: { ...figure.layout.xaxis, ...clientTicks(ids, "x") } };
    if (figure.key === "examples") {
      const y = ids.map((id) => (100 * (cells.examples[place.get(id)] ?? 0)) / (page.total_examples || 1));
      return { data: [bar(y, "share", "@blue", "%{text}: %{y:.2f} %<extra></extra>")], layout };
    }
    const data = page.states.map((s) => {
      const y = ids.map((id) => { let n = 0; for (const k of cellsOf(id)) n += cells.states[k] === s.code; return n; });
      return bar(y, s.word, s.color, `%{text}: %{y} rounds ${s.word}<extra></extra>`);
    });
    const most = Math.max(1, ...ids.map((_, i) => data.reduce((sum, trace) => sum + trace.y[i], 0)));
    layout.yaxis = { ...layout.yaxis, dtick: wholeStep(most / 6) };
    return { data: data.filter((trace) => trace.y.some(Boolean)), layout };
  }

  // Rounds are whole numbers, and so are their ticks: every 1, 2, 5, 10, 20, 50 ...
  function wholeStep(least) {
    for (let power = 1; ; power *= 10) for (const digit of [1, 2, 5]) if (digit * power >= least) return digit * power;
  }

  function roundsFigure(figure) {
    const data = figure.data.map(roundsTrace);
    if (figure.overlay) state.clients.slice(0, 8).forEach((id, i) => data.push(ownLine(id, figure.overlay, i)));
    const layout = { ...figure.layout, xaxis: { ...figure.layout.xaxis, dtick: wholeStep((state.to - state.from) / 10) } };
    if (layout.shapes) layout.shapes = layout.shapes.filter((s) => inRange(s.x0));
    if (layout.annotations) layout.annotations = layout.annotations.filter((a) => inRange(a.x));
    return { data, layout };
  }

  const builders = { rounds: roundsFigure, map: mapFigure, clients: clientsFigure, fixed: (f) => f };
  const touch = matchMedia("(pointer: coarse)").matches;
  // A picture for a paper has its title, and white behind it.
  const saved = (format) => ({
    name: `Save as ${format.toUpperCase()}`,
    icon: Plotly.Icons.camera,
    click(chart) {
      const title = { text: chart.getAttribute("aria-label"), font: { size: 15 } };
      const layout = { ...chart.layout, title, paper_bgcolor: "white", plot_bgcolor: "white" };
      layout.margin = { ...layout.margin, t: 48 };
      const size = { width: chart.clientWidth, height: chart.clientHeight + 20, scale: format === "png" ? 3 : 1 };
      Plotly.downloadImage({ data: chart.data, layout }, { format, filename: chart.id.replace("chart-", ""), ...size });
    },
  });
  const config = {
    responsive: true, displaylogo: false, modeBarButtonsToAdd: [saved("svg"), saved("png")],
    modeBarButtonsToRemove: ["toImage", "lasso2d", "select2d", "autoScale2d"],
  };

  function drawOne(figure) {
    const { data, layout } = builders[figure.kind](figure);
    const colours = painted({ data, layout }, "");
    // On a touch screen a drag scrolls the page; a double tap or the buttons still zoom.
    const more = { dragmode: touch ? false : "zoom", autosize: !printing };
    if (printing) {
      more.width = printWidth;
      more.height = figure.kind === "map" ? layout.height : 240; // three on a page
    }
    Plotly.react(byId("chart-" + figure.key), colours.data, { ...colours.layout, ...more }, config);
  }

  async function draw(figures = page.figures) {
    for (const figure of figures) due.add(figure);
    delete root.dataset.ready;
    if (drawing) return; // the loop below sees what was added
    drawing = true;
    for (const figure of due) {
      due.delete(figure);
      drawOne(figure);
      await new Promise((done) => setTimeout(done)); // lets the page scroll and react in between
    }
    drawing = false;
    root.dataset.ready = "1";
  }

  // --- tables
  function filterRows() {
    const wanted = new Set(state.clients.map(String));
    for (const row of document.querySelectorAll("tr[data-filter]")) {
      const inRounds = !row.dataset.round || inRange(Number(row.dataset.round));
      const ofClients = !wanted.size || !row.dataset.clients || row.dataset.clients.split(" ").some((c) => wanted.has(c));
      row.hidden = !(inRounds && ofClients);
    }
  }
  for (const button of document.querySelectorAll("th button")) {
    button.addEventListener("click", () => {
      const cell = button.parentElement, body = cell.closest("table").tBodies[0];
      const down = cell.getAttribute("aria-sort") !== "descending";
      for (const other of cell.parentElement.children) other.removeAttribute("aria-sort");
      cell.setAttribute("aria-sort", down ? "descending" : "ascending");
      const value = (row) => {
        const number = Number(row.cells[cell.cellIndex].dataset.value);
        return Number.isFinite(number) ? number : -Number.MAX_VALUE; // what is not there comes below the rest
      };
      body.append(...[...body.rows].sort((a, b) => (down ? value(b) - value(a) : value(a) - value(b))));
    });
  }

  // --- filters, kept behind the # of the address
  function remember(extra = {}) {
    const words = new URLSearchParams(extra);
    if (state.from !== page.rounds[0]) words.set("from", state.from);
    if (state.to !== page.rounds[1]) words.set("to", state.to);
    for (const id of state.clients) words.append("client", nameOf(id));
    if (state.theme !== "auto") words.set("theme", state.theme);
    history.replaceState(null, "", "#" + words);
  }
  function recall() {
    const words = new URLSearchParams(location.hash.slice(1));
    const round = (key, other) => (/^\d+$/.test(words.get(key) ?? "") ? Number(words.get(key)) : other);
    state.from = Math.max(page.rounds[0], round("from", page.rounds[0]));
    state.to = Math.min(page.rounds[1], round("to", page.rounds[1]));
    state.clients = words.getAll("client").map((name) => cells.ids[cells.names.indexOf(name)]).filter((id) => id !== undefined);
    state.theme = ["light", "dark"].includes(words.get("theme")) ? words.get("theme") : "auto";
    return Number(words.get("y") ?? 0);
  }
  function showFilters() {
    if (!byId("filters")) return;
    byId("from").value = state.from;
    byId("to").value = state.to;
    const chips = state.clients.map((id) => {
      const chip = document.createElement("button");
      chip.type = "button";
      chip.textContent = `${nameOf(id)} ×`;
      chip.title = "Remove from the filter";
      chip.addEventListener("click", () => change({ clients: state.clients.filter((c) => c !== id) }));
      return chip;
    });
    byId("chips").replaceChildren(...chips);
  }
  function change(news) {
    Object.assign(state, news);
    remember();
    showTheme();
    showFilters();
    filterRows();
    // Of the clients that are chosen, some figures show nothing.
    const ofClients = (figure) => figure.overlay || figure.kind === "map" || figure.kind === "clients";
    draw(Object.keys(news).every((key) => key === "clients") ? page.figures.filter(ofClients) : page.figures);
  }

  function listen() {
    const number = (id) => Number(byId(id).value);
    const clamp = (value) => Math.min(page.rounds[1], Math.max(page.rounds[0], Math.round(value) || 0));
    byId("filters").addEventListener("submit", (event) => event.preventDefault());
    byId("from").addEventListener("change", () => change({ from: Math.min(clamp(number("from")), state.to) }));
    byId("to").addEventListener("change", () => change({ to: Math.max(clamp(number("to")), state.from) }));
    byId("client").addEventListener("change", () => {
      const at = cells.names.indexOf(byId("client").value.trim());
      if (at < 0) return;
      byId("client").value = "";
      if (!state.clients.includes(cells.ids[at])) change({ clients: [...state.clients, cells.ids[at]] });
    });
    byId("reset").addEventListener("click", () => change({ from: page.rounds[0], to: page.rounds[1], clients: [] }));
    byId("names").replaceChildren(...cells.names.map((name) => new Option("", name)));
  }

  // --- live: the server says which version of the record it has
  async function poll() {
    try {
      const answer = await fetch("version", { cache: "no-store" });
      const version = await answer.text();
      byId("live").classList.toggle("off", !answer.ok);
      if (answer.ok && version !== page.live.version) {
        remember({ y: Math.round(scrollY) });
        location.reload();
        return;
      }
    } catch {
      byId("live").classList.add("off"); // the server has ended; the page stays as it is
    }
    setTimeout(poll, 1000 * page.live.seconds);
  }

  const scrolled = recall();
  byId("theme").addEventListener("click", () => {
    change({ theme: { auto: "light", light: "dark", dark: "auto" }[state.theme] });
  });
  if (byId("filters")) listen();
  dark.addEventListener("change", () => { showTheme(); draw(); });
  addEventListener("beforeprint", () => {
    printing = true;
    for (const details of document.querySelectorAll("details")) details.open = true;
    showTheme();
    page.figures.forEach(drawOne);
  });
  addEventListener("afterprint", () => { printing = false; showTheme(); draw(); });
  showTheme();
  showFilters();
  filterRows();
  draw().then(() => { if (scrolled) scrollTo(0, scrolled); });
  if (page.live) setTimeout(poll, 1000 * page.live.seconds);
})();
