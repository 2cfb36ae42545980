"use strict";
// Asks for the numbers every two seconds and puts them where the page has them. The columns of the tables are read from the page, so that they
// are defined once. Text from outside only ever becomes text: no markup is parsed here.
(() => {
  const EVERY_MS = 2000, ANSWER_MS = 5000, KEPT_MS = 300000, SHOWN_MS_MIN = 60000, GAP_MS = 10000;
  const SVG = "http://www.w3.org/2000/svg";
  const WIDTH = 300, HEIGHT = 40;
  const byId = (id) => document.getElementById(id);

  // Name of a number -> [[milliseconds of the program's uptime, value], ...], oldest first.
  const past = new Map();
  // Both as uptime. All plots show the same time.
  let now = 0, since = 0, paused = false, answered = Date.now();
  const shown = () => Math.min(KEPT_MS, Math.max(SHOWN_MS_MIN, now - since));

  const count = (n) => String(n).replace(/\B(?=(\d{3})+$)/g, ",");
  const cut = (n) => Math.floor(n * 10) / 10;
  const bytes = (n) => {
    const units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let unit = 0;
    for (; n >= 1024 && unit < 4; unit++) n /= 1024;
    return `${cut(n)} ${units[unit]}`;
  };
  const seconds = (n) => {
    const parts = [[n / 86400, "d"], [n / 3600 % 24, "h"], [n / 60 % 60, "min"], [n % 60, "s"]].map(([n, unit]) => [Math.floor(n), unit]);
    const from = parts.findIndex(([n]) => n > 0);
    const [first, second] = parts.slice(from < 0 ? 3 : from);
    return [first, second].filter((part, i) => part && (!i || part[0])).map((part) => part.join(" ")).join(" ");
  };
  const times = (n) => n === 1 ? "once" : `${count(n)} times`;
  const rules = ({ some, more }) => {
    const text = some.map(({ rule, errors }) => errors ? `${rule} (${times(errors)})` : String(rule)).join(", ");
    return (text || "–") + (more ? ` and ${count(more)} more` : "");
  };
  const forms = {
    name: String, text: String, count, bytes, seconds, rules,
    share: (n) => `${Math.floor(n * 100)} %`,
    up: (is) => is ? "up" : "down",
  };
  const written = (form, value) => value === null ? "–" : forms[form](value);
  const speed = (n) => n > 0 && n < 10 ? n.toFixed(1) : count(Math.round(n));

  const setText = (element, text) => { if (element.textContent !== text) element.textContent = text; };
  const setClass = (element, name) => { if (element.className !== name) element.className = name; };

  // The values of the last minutes, the one of now among them.
  const values = (name, value) => {
    const points = past.get(name) ?? [];
    if (points.at(-1)?.[0] !== now) points.push([now, value]);
    while (points[0][0] < now - KEPT_MS) points.shift();
    past.set(name, points);
    return points;
  };
  // How fast it grew, per second, between each two of them.
  const rates = (name, value) => {
    const points = values(name, value);
    return points.slice(1).map(([at, n], i) => {
      const [before, m] = points[i];
      return [at, Math.max(0, n - m) * 1000 / (at - before)];
    });
  };

  // Draws points into an element; what they mean is also said in words.
  const draw = (holder, points, unit) => {
    let svg = holder.firstElementChild;
    if (!svg) {
      svg = holder.appendChild(document.createElementNS(SVG, "svg"));
      svg.setAttribute("viewBox", `0 0 ${WIDTH} ${HEIGHT}`);
      svg.setAttribute("preserveAspectRatio", "none");
      svg.setAttribute("role", "img");
      for (const name of ["area", "line"]) svg.appendChild(document.createElementNS(SVG, "path")).setAttribute("class", name);
    }
    const highest = points.reduce((most, [, n]) => Math.max(most, n), 0);
    const lowest = points.reduce((least, [, n]) => Math.min(least, n), Infinity);
    const x = (at) => (WIDTH * (1 - (now - at) / shown())).toFixed(1);
    const y = (n) => (HEIGHT - 1 - (HEIGHT - 4) * (highest ? n / highest : 0)).toFixed(1);
    let line = "", area = "", last = -Infinity;
    for (const [at, n] of points) {
      const starts = at - last > GAP_MS;
      if (starts && area) area += `V${HEIGHT}Z`;
      area += starts ? `M${x(at)},${HEIGHT}V${y(n)}` : `L${x(at)},${y(n)}`;
      line += `${starts ? "M" : "L"}${x(at)},${y(n)}`;
      last = at;
    }
    svg.firstChild.setAttribute("d", area && `${area}V${HEIGHT}Z`);
    svg.lastChild.setAttribute("d", line);
    const span = points.length ? seconds(Math.round((now - points[0][0]) / 1000)) : "";
    svg.setAttribute("aria-label", points.length ? `in the last ${span} between ${speed(lowest)} and ${speed(highest)}${unit}` : "no history yet");
  };

  const card = (element, records) => {
    const key = element.dataset.card;
    const points = rates(`records ${key}`, records[key]);
    const [rate, total, plot] = [".rate", ".total b", ".plot"].map((part) => element.querySelector(part));
    if (!rate.firstChild) rate.append(document.createElement("span"), document.createElement("small"));
    setText(rate.firstChild, points.length ? speed(points.at(-1)[1]) : "–");
    const peak = points.reduce((most, [, n]) => Math.max(most, n), 0);
    const ago = seconds(Math.round(shown() / 1000));
    setText(rate.lastChild, key === "received" ? ` per second, at most ${speed(peak)} in the last ${ago}` : " /s");
    setText(total, count(records[key]));
    const axis = element.querySelector(".axis");
    if (axis) setText(axis.firstChild, `${ago} ago`);
    draw(plot, points, " per second");
  };

  const liveCell = (cell, name, value, isRate) => {
    if (!cell.firstChild) {
      const box = cell.appendChild(document.createElement("div"));
      if (isRate) box.appendChild(document.createElement("span"));
      setClass(box.appendChild(document.createElement("div")), "plot");
    }
    const box = cell.firstChild;
    const points = isRate ? rates(name, value) : values(name, value);
    if (isRate) setText(box.firstChild, points.length ? speed(points.at(-1)[1]) : "–");
    draw(box.lastChild, points, isRate ? " per second" : "");
  };

  const table = (section, { rows, more }) => {
    const key = section.dataset.table;
    const columns = [...section.querySelectorAll("thead th")].map((head) => head.dataset);
    const body = section.querySelector("tbody");
    section.hidden = !rows.length;
    while (body.rows.length > rows.length) body.lastChild.remove();
    rows.forEach((values, i) => {
      const row = body.rows[i] ?? body.appendChild(document.createElement("tr"));
      setClass(row, values.tone ?? "");
      columns.forEach((column, j) => {
        let cell = row.cells[j];
        const isLive = column.form === "rate" || column.form === "trend";
        if (!cell) {
          cell = row.appendChild(document.createElement(column.form === "name" ? "th" : "td"));
          if (column.form === "name") cell.scope = "row";
          else setClass(cell, isLive ? "live" : ["text", "up", "rules"].includes(column.form) ? "words" : "");
        }
        const value = values[column.key];
        if (isLive) liveCell(cell, `${key} ${column.key} ${values[columns[0].key]}`, value, column.form === "rate");
        else setText(cell, written(column.form, value));
      });
    });
    const rest = section.querySelector(".more");
    setText(rest, more ? `and ${count(more)} more ${rest.dataset.rows}` : "");
  };

  const health = ({ tone, verdict, findings }) => {
    setClass(byId("health"), tone);
    setText(byId("verdict"), verdict);
    const list = byId("findings");
    while (list.children.length > findings.length) list.lastChild.remove();
    findings.forEach((finding, i) => {
      const item = list.children[i] ?? list.appendChild(document.createElement("li"));
      setClass(item, finding.tone);
      setText(item, finding.text);
    });
    document.title = `${tone === "well" ? "✓" : tone === "warn" ? "!" : "✗"} vault-audit-filter`;
  };

  const show = (numbers) => {
    if (numbers.uptime_ms < now) past.clear();
    if (!past.size) since = numbers.uptime_ms;
    now = numbers.uptime_ms;
    health(numbers.health);
    setText(byId("version"), numbers.version);
    setText(byId("uptime"), seconds(Math.floor(now / 1000)));
    document.querySelectorAll("[data-card]").forEach((element) => card(element, numbers.records));
    document.querySelectorAll("[data-table]").forEach((section) => table(section, numbers[section.dataset.table]));
    document.documentElement.classList.remove("old");
    // Numbers of what is not there any more.
    for (const [name, points] of past) if (points.at(-1)[0] < now - KEPT_MS) past.delete(name);
    answered = Date.now();
  };

  const silent = () => {
    document.documentElement.classList.add("old");
    health({
      tone: "bad", verdict: "No answer",
      findings: [{ tone: "bad", text: `The program has not answered since ${new Date(answered).toLocaleTimeString()}; what is shown is from then` }],
    });
  };

  const ask = async () => {
    let numbers;
    try {
      const answer = await fetch("/status.json", { cache: "no-store", signal: AbortSignal.timeout(ANSWER_MS) });
      numbers = await answer.json();
    } catch {
      return silent();
    }
    show(numbers);
  };
  const again = async () => {
    try {
      if (!paused && !document.hidden) await ask();
    } finally {
      setTimeout(again, EVERY_MS);
    }
  };

  document.documentElement.classList.add("js");
  byId("pause").addEventListener("click", ({ target }) => {
    paused = !paused;
    target.setAttribute("aria-pressed", String(paused));
  });
  again();
})();
