"use strict";
// Draws the board that lies in #data. All text goes through textContent, so nothing of a record is ever read as HTML.

const MISSING = "–";
const state = { metric: "main", subset: "", shots: "", protocol: "", words: "", references: "all", intervals: true, sort: null };

function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

// ---- numbers, as medfmc_hf.words writes them ------------------------------------------------------------------------------------

/** Of two equally near numbers the one that ends in an even digit, as Python rounds; toFixed takes the larger one. */
function fixed(value, digits) {
  const text = value.toFixed(digits);
  const between = (Math.abs(value) * 2 ** (digits + 1)) % 2 === 1; // exactly half way, which only such binary fractions can be
  return between && Number(text.at(-1)) % 2 ? (value - Math.sign(value) * 10 ** -(digits + 2)).toFixed(digits) : text;
}

/** Three significant digits. */
function significant(value) {
  const digits = 2 - Math.floor(Math.log10(Math.abs(value) || 1));
  return Number(digits >= 0 && digits <= 2 ? fixed(value, digits) : value.toPrecision(3));
}

const isMissing = (value) => value === null || value === undefined;
const percent = (value) => (isMissing(value) ? MISSING : fixed(100 * value, 2));
const signed = (value) => (value < 0 || Object.is(value, -0) ? percent(value) : `+${percent(value)}`);
const range = (ends, write = percent) => `${write(ends[0])} to ${write(ends[1])}`;
const shotsWords = (shots) => ({ pool: "whole pool", train_20: "train_20" })[shots] || `${shots}-shot`;
const plural = (number, word) => `${number} ${word}${number === 1 ? "" : "s"}`;
const pValue = (p) => (p > 0 && significant(p) < 1e-4 ? significant(p).toExponential().replace(/-(\d)$/, "-0$1") : String(significant(p)));
const comparisons = (number) => `Holm, over ${plural(number, "comparison")}`;
const secondsWords = (value) => (isMissing(value) ? MISSING : fixed(value, value < 10 ? 1 : 0));

function count(number) {
  if (isMissing(number)) return MISSING;
  for (const [size, letter] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (number >= size) return `${significant(number / size)} ${letter}`;
  return String(significant(number));
}

const seedKind = (shots) => (["pool", "train_20"].includes(shots) ? "training seed" : "split seed");

function seedsWords(shots, splits, runs) {
  const number = seedKind(shots) === "training seed" ? runs : splits;
  return plural(number, seedKind(shots)) + (runs > number ? `, ${runs} runs` : "");
}

function table(caption, head, body) {
  return h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", {}, h("span", {}, caption)), h("thead", {}, head), h("tbody", {}, body)));
}

function choice(label, id, options, value, change) {
  const select = h("select", { id, onchange: (event) => change(event.target.value) },
    options.map(([key, words]) => h("option", { value: key, selected: key === value }, words)));
  return h("label", { for: id }, label, select);
}

const tick = (label, id, value, change) =>
  h("label", { class: "tick", for: id }, h("input", { type: "checkbox", id, checked: value, onchange: (event) => change(event.target.checked) }), label);

// ---- what is shown -------------------------------------------------------------------------------------------------------------

const subsetsOf = (board) => Object.keys(board.subsets).filter((key) => board.results.some((result) => result.subset === key));
const shotsOf = (board, subset) => board.shot_order.filter((shots) => board.results.some((result) => result.subset === subset && result.shots === shots));
const resultOf = (board, adaptation, subset, shots) =>
  board.results.find((result) => result.adaptation === adaptation && result.subset === subset && result.shots === shots);
const metricOf = (board, subset) => (state.metric === "main" ? board.subsets[subset].metric : state.metric);
const adaptationOf = (board, key) => board.adaptations.find((adaptation) => adaptation.key === key);
const options = (values) => Object.entries(values).map(([name, value]) => `${name.replaceAll("_", " ")} ${value === null ? "default" : typeof value === "object" ? JSON.stringify(value) : value}`);

function columnsOf(board) {
  return subsetsOf(board).filter((subset) => !state.subset || subset === state.subset)
    .flatMap((subset) => shotsOf(board, subset).filter((shots) => !state.shots || shots === state.shots).map((shots) => ({ subset, shots })));
}

/** Rows of the board, runs and references alike: their words, and by column the number that sorts and the result that explains it. */
function rowsOf(board, columns) {
  const runs = board.adaptations.filter((adaptation) => !state.protocol || adaptation.protocol === state.protocol).map((adaptation) => {
    const results = columns.map(({ subset, shots }) => resultOf(board, adaptation.key, subset, shots));
    const seconds = results.filter((result) => result && !isMissing(result.cost.own_seconds)).map((result) => result.cost.own_seconds);
    const trained = results.filter((result) => result && result.cost.trainable_parameters !== null).map((result) => result.cost.trainable_parameters);
    return {
      kind: "run", adaptation, label: adaptation.label, search: `${adaptation.label} ${adaptation.backbone}`, results,
      values: results.map((result, i) => (result ? result.metrics[metricOf(board, columns[i].subset)].mean : null)),
      trained: trained.length ? Math.max(...trained) : null,
      seconds: seconds.length ? seconds.reduce((a, b) => a + b) / seconds.length : null,
    };
  });
  const shownReferences = board.references.filter((reference) => reference.kind === "chance" || state.references !== "none");
  const references = shownReferences.map((reference) => ({
    kind: reference.kind, reference, label: reference.label, search: `${reference.label} ${reference.source}`, results: [], trained: null, seconds: null,
    values: columns.map(({ subset, shots }) => {
      const found = reference.values.find((v) => v.subset === subset && v.shots === shots && v.metric === metricOf(board, subset));
      return found && (state.references !== "same" || reference.comparable[subset]) ? found.value : null;
    }),
  }));
  const wanted = state.words.toLowerCase().split(/\s+/).filter(Boolean);
  const rows = [...runs, ...references].filter((row) => row.values.some((value) => value !== null) && wanted.every((word) => row.search.toLowerCase().includes(word)));
  return sorted(rows);
}

function sorted(rows) {
  if (!state.sort) return rows;
  const { by, direction } = state.sort;
  const key = (row) => (typeof by === "number" ? row.values[by] : row[by]);
  return [...rows].sort((a, b) => {
    const [x, y] = [key(a), key(b)];
    if (x === null || y === null) return (x === null) - (y === null); // what is missing stays at the end
    return direction * (typeof x === "string" ? x.localeCompare(y) : x - y);
  });
}

/** Whether a row has the highest mean of its column among runs of the same protocol and test rows. */
function isBest(rows, row, column) {
  const peers = rows.filter((other) => other.kind === "run" && other.results[column] && other.adaptation.protocol === row.adaptation.protocol
    && (other.adaptation.config.images || "") === (row.adaptation.config.images || "")
    && other.results[column].test_rows === row.results[column].test_rows && other.values[column] !== null);
  return peers.every((other) => other.values[column] <= row.values[column]);
}

// ---- sections ------------------------------------------------------------------------------------------------------------------

function boardSection(board, redraw) {
  const metrics = [["main", "mAP / accuracy"], ["auc", "AUC"], ["score", "mean of both"]];
  const protocols = [...new Set(board.adaptations.map((adaptation) => adaptation.protocol))];
  const set = (name) => (value) => { state[name] = value; state.sort = name === "words" ? state.sort : null; redraw(); };
  const shots = board.shot_order.filter((s) => board.results.some((result) => result.shots === s));
  const search = h("input", { type: "search", id: "words", value: state.words, oninput: (event) => set("words")(event.target.value) });
  return [
    h("p", {}, "Mean over seeds ± standard deviation over seeds, in percent. ", h("b", {}, "seeds"), " is the 95 % interval of that mean over other support sets, which split seeds draw; in a column of one support set seeds are training seeds, and there is none; ",
      h("b", {}, "test"), " is its 95 % interval over other test patients, with the trained models as they are (jackknife; on invented test sets such intervals held the true value in 92.8 to 97.5 % of 400 draws, benchmarks/intervals.py). They answer different questions and are not added up."),
    h("div", { class: "controls", role: "group", "aria-label": "Filter the board" },
      choice("Metric", "metric", metrics, state.metric, set("metric")),
      choice("Subset", "subset", [["", "all"], ...subsetsOf(board).map((key) => [key, board.subsets[key].name])], state.subset, set("subset")),
      choice("Shots", "shots", [["", "all"], ...shots.map((s) => [s, shotsWords(s)])], state.shots, set("shots")),
      protocols.length > 1 ? choice("Protocol", "protocol", [["", "all"], ...protocols.map((p) => [p, p])], state.protocol, set("protocol")) : null,
      h("label", { for: "words" }, "Method or model contains", search),
      choice("Published numbers", "references", [["all", "all"], ["same", "same test list"], ["none", "none"]], state.references, set("references")),
      tick("Intervals", "intervals", state.intervals, set("intervals"))),
    h("div", { id: "board-table" }),
  ];
}

function drawBoard(board) {
  const columns = columnsOf(board);
  const rows = rowsOf(board, columns);
  const header = (label, by, first = false) => {
    const direction = state.sort && state.sort.by === by ? state.sort.direction : 0;
    const next = direction === 0 ? (by === "label" || by === "trained" || by === "seconds" ? 1 : -1) : -direction;
    const sort = () => {
      state.sort = { by, direction: next };
      drawBoard(board);
      document.querySelector(`#board-table [data-by="${by}"]`).focus();
    };
    return h("th", { scope: "col", class: by === "label" ? "corner" : first ? "num first" : "num", "aria-sort": { 1: "ascending", "-1": "descending" }[direction] || "none" },
      h("button", { type: "button", "data-by": by, onclick: sort }, label));
  };
  const groups = [];
  for (const { subset } of columns) {
    if (groups.length && groups.at(-1).subset === subset) groups.at(-1).width += 1;
    else groups.push({ subset, width: 1 });
  }
  const first = columns.map(({ subset }, i) => i === 0 || columns[i - 1].subset !== subset);
  const head = [
    h("tr", {}, h("th", { class: "corner" }), groups.map(({ subset, width }) =>
      h("th", { scope: "colgroup", colspan: width, class: "group" }, `${board.subsets[subset].name}, ${board.metric_names[metricOf(board, subset)]}`)),
      h("th", { class: "group", scope: "colgroup", colspan: 2 }, "Cost")),
    h("tr", {}, header("Method · model", "label"), columns.map(({ shots }, i) => header(shotsWords(shots), i, first[i])), header("Trained", "trained", true), header("Seconds", "seconds")),
  ];
  const body = rows.map((row) => h("tr", { class: row.kind === "run" ? null : "reference" },
    h("th", { scope: "row" }, rowLabel(board, row)),
    columns.map((column, i) => h("td", { class: first[i] ? "num first" : "num" }, boardCell(board, rows, row, i, column))),
    h("td", { class: "num first" }, count(row.trained)), h("td", { class: "num" }, secondsWords(row.seconds))));
  const caption = "Bold: highest mean of the runs in a column; the paired comparison below says whether a difference is more than chance. "
    + "†: another test list, or one that was not stated; not comparable. Headers sort.";
  document.getElementById("board-table").replaceChildren(rows.length ? table(caption, head, body) : h("p", {}, "No row fits the filter."));
  document.getElementById("shown").textContent = `${plural(rows.filter((row) => row.kind === "run").length, "row")} of runs shown.`;
}

function rowLabel(board, row) {
  if (row.kind === "run") {
    const differs = options(row.adaptation.differs).filter((words) => !row.label.includes(words)); // the label names what it needs
    return [row.adaptation.live ? h("span", { class: "badge" }, "new") : null, row.label, differs.length ? h("span", { class: "small" }, differs.join(", ")) : null];
  }
  if (row.kind === "chance") return [h("span", { class: "badge" }, "chance"), row.label];
  return [h("span", { class: "badge" }, "published"), row.label, h("span", { class: "small" }, `${row.reference.source}; tested on: ${row.reference.test_list}`)];
}

function boardCell(board, rows, row, i, { subset }) {
  const value = row.values[i];
  if (row.kind !== "run") {
    const caveat = value !== null && row.reference.caveats[subset];
    return [percent(value), value !== null && !row.reference.comparable[subset] ? h("abbr", { title: caveat, "aria-label": "not comparable" }, "†") : null];
  }
  const result = row.results[i];
  if (!result) return MISSING;
  const estimate = result.metrics[metricOf(board, subset)];
  if (estimate.mean === null) return "undefined";
  const small = (words) => h("span", { class: "small" }, words);
  return [
    h("span", { class: isBest(rows, row, i) ? "best" : null }, percent(estimate.mean)), estimate.sd === null ? null : ` ± ${percent(estimate.sd)}`,
    small(seedsWords(result.shots, estimate.seeds, estimate.runs)),
    estimate.training_sd === null ? null : small(`${estimate.split_sd === null ? "" : `splits ± ${percent(estimate.split_sd)}, `}training ± ${percent(estimate.training_sd)}`),
    state.intervals && estimate.seed_interval ? small(`seeds ${range(estimate.seed_interval)}`) : null,
    state.intervals && estimate.test_interval ? small(`test ${range(estimate.test_interval)}`) : null,
  ];
}

function figuresSection(board, figures, legend, intro) {
  if (!figures || !figures.length) return null;
  const drawn = new Set(board.results.map((result) => result.adaptation));
  return [
    h("p", {}, intro),
    h("ul", { class: "legend" }, legend.filter((entry) => drawn.has(entry.adaptation)).map((entry) =>
      h("li", {}, h("span", { style: `color:${entry.colour}`, "aria-hidden": "true" }, `${entry.mark} `), adaptationOf(board, entry.adaptation).label))),
    h("div", { class: "figures" }, figures.map((figure) =>
      h("img", { src: `data:image/svg+xml;charset=utf-8,${encodeURIComponent(figure.svg)}`, alt: `${figure.title}. The numbers are in the board.`, width: 346, height: 259 }))),
  ];
}

function classesSection(board) {
  const subsets = subsetsOf(board).filter((key) => board.results.some((result) => result.subset === key && Object.keys(result.per_class).length));
  if (!subsets.length) return null;
  const view = { subset: subsets.includes("chest") ? "chest" : subsets[0], shots: null, metric: "auc" };
  const place = h("div");
  const draw = () => {
    const shots = shotsOf(board, view.subset);
    if (!shots.includes(view.shots)) view.shots = shots.filter((s) => s !== "pool").at(-1) || shots.at(-1);
    const results = board.results.filter((result) => result.subset === view.subset && result.shots === view.shots);
    const own = board.subsets[view.subset].metric === "map" ? "ap" : "recall";
    if (view.metric !== "auc") view.metric = own;
    const change = (name) => (value) => { view[name] = value; draw(); document.getElementById(`class-${name}`).focus(); };
    const names = board.subsets[view.subset].classes.filter((name) => results.some((result) => result.per_class[name]));
    const head = h("tr", {}, h("th", { scope: "col", class: "corner" }, "Class"), h("th", { scope: "col", class: "num" }, "Positives"),
      results.map((result) => h("th", { scope: "col", class: "num name" }, adaptationOf(board, result.adaptation).label)));
    const body = names.map((name) => h("tr", {}, h("th", { scope: "row" }, name.replaceAll("_", " ")),
      h("td", { class: "num" }, positives(results, name)),
      results.map((result) => {
        const value = (result.per_class[name] || {})[view.metric];
        const share = value === null || value === undefined ? 0 : view.metric === "auc" ? Math.max(0, value - 0.5) * 90 : value * 45;
        return h("td", { class: "num shade", style: `--share:${share.toFixed(1)}%` }, value === null || value === undefined ? "undefined" : percent(value));
      })));
    place.replaceChildren(
      h("div", { class: "controls", role: "group", "aria-label": "Choose the per-class view" },
        choice("Subset", "class-subset", subsets.map((key) => [key, board.subsets[key].name]), view.subset, change("subset")),
        choice("Shots", "class-shots", shots.map((s) => [s, shotsWords(s)]), view.shots, change("shots")),
        choice("Measure", "class-metric", [["auc", "AUC"], [own, own === "ap" ? "average precision" : "recall"]], view.metric, change("metric"))),
      table(`${board.subsets[view.subset].name}, ${shotsWords(view.shots)}: ${{ auc: "AUC", ap: "average precision", recall: "recall" }[view.metric]} of each class in percent, mean over seeds.`, head, body));
  };
  draw();
  return place;
}

function positives(results, name) {
  const counts = [...new Set(results.map((result) => (result.per_class[name] || {}).positives).filter((n) => n !== null && n !== undefined))];
  return counts.length ? counts.join(" / ") : MISSING;
}

function comparisonSection(board) {
  if (!board.comparisons.length) return null;
  const view = { subset: board.comparisons[0].subset, shots: null, metric: "main" };
  const place = h("div");
  const draw = () => {
    const shots = board.shot_order.filter((s) => board.comparisons.some((c) => c.subset === view.subset && c.shots === s));
    if (!shots.includes(view.shots)) view.shots = shots.filter((s) => s !== "pool").at(-1) || shots.at(-1);
    const metric = view.metric === "main" ? board.subsets[view.subset].metric : view.metric;
    const found = board.comparisons.filter((c) => c.subset === view.subset && c.shots === view.shots && c.metric === metric);
    const change = (name) => (value) => { view[name] = value; draw(); document.getElementById(`compare-${name}`).focus(); };
    const subsets = subsetsOf(board).filter((key) => board.comparisons.some((c) => c.subset === key));
    place.replaceChildren(
      h("div", { class: "controls", role: "group", "aria-label": "Choose the comparison" },
        choice("Subset", "compare-subset", subsets.map((key) => [key, board.subsets[key].name]), view.subset, change("subset")),
        choice("Shots", "compare-shots", shots.map((s) => [s, shotsWords(s)]), view.shots, change("shots")),
        choice("Metric", "compare-metric", [["main", "mAP / accuracy"], ["auc", "AUC"], ["score", "mean of both"]], view.metric, change("metric"))),
      ...found.map((comparison) => matrix(board, comparison)));
  };
  draw();
  return [
    h("p", {}, "Row minus column, in points, on the same test rows and the same seeds; below it the 95 % interval over test patients and p, corrected by Holm over all pairs of the table, whose number stands above it. ",
      "▲: the row is better, ▼: worse, at corrected p < 0.05. The last line counts the split seeds in which the row is better: where that is divided, another support set may turn the result."),
    place,
  ];
}

function matrix(board, comparison) {
  const labels = comparison.adaptations.map((key) => adaptationOf(board, key).label);
  const pair = (r, c) => {
    const straight = comparison.pairs.find((p) => p.a === r && p.b === c);
    const turned = comparison.pairs.find((p) => p.a === c && p.b === r);
    if (straight) return straight;
    return turned && { ...turned, difference: -turned.difference, low: -turned.high, high: -turned.low, wins: turned.losses, losses: turned.wins };
  };
  const cell = (r, c) => {
    if (r === c) return h("td", { class: "num" }, "");
    const found = pair(r, c);
    if (!found) return h("td", { class: "num" }, MISSING);
    const sure = found.p_holm < 0.05;
    return h("td", { class: "num" },
      h("span", { class: sure ? (found.difference > 0 ? "better" : "worse") : null }, sure ? (found.difference > 0 ? "▲ " : "▼ ") : "", signed(found.difference)),
      h("span", { class: "small" }, range([found.low, found.high], signed)), h("span", { class: "small" }, `p = ${pValue(found.p_holm)}`),
      h("span", { class: "small" }, `better in ${found.wins} of ${found.seeds.length}`));
  };
  const head = h("tr", {}, h("th", { class: "corner" }, h("span", { class: "small" }, "row minus column")), labels.map((label) => h("th", { scope: "col", class: "num name" }, label)));
  const body = labels.map((label, r) => h("tr", {}, h("th", { scope: "row" }, label), labels.map((_, c) => cell(r, c))));
  return table(`${board.subsets[comparison.subset].name}, ${shotsWords(comparison.shots)}, ${board.metric_names[comparison.metric]}; p: ${comparisons(comparison.pairs.length)}`, head, body);
}

function publishedSection(board) {
  const published = board.references.filter((reference) => reference.kind === "published");
  if (!published.length) return null;
  const seen = new Map();
  for (const r of published) {
    const key = JSON.stringify([r.source, r.where, r.test_list, r.caveat]);
    if (!seen.has(key)) seen.set(key, { reference: r, models: new Map(), rows: new Map() });
    const { models, rows } = seen.get(key);
    models.set(r.model, [...(models.get(r.model) || []), r.method]);
    for (const [subset, count] of Object.entries(r.test_rows)) rows.set(board.subsets[subset].name, [count, r.comparable[subset]]);
  }
  const head = h("tr", {}, ["Source", "Rows", "Test list", "Caveat"].map((words) => h("th", { scope: "col" }, words)));
  const body = [...seen.values()].map(({ reference, models, rows }) => h("tr", {},
    h("th", { scope: "row" }, reference.source, h("span", { class: "small" }, reference.where)),
    h("td", { class: "words" }, [...models].map(([model, methods]) => h("div", {}, h("b", {}, `${model}: `), methods.join(", ")))),
    h("td", {}, reference.test_list, [...rows].filter(([, [count]]) => count).map(([name, [count, same]]) =>
      h("span", { class: "small" }, `${name} ${count.toLocaleString("en")}${same ? ", as here" : ", not as here"}`))),
    h("td", { class: "words" }, reference.caveat)));
  return [h("p", {}, "Reference rows, not baselines of ours. A number counts for a comparison only where its test list is the same."),
    table("Published numbers and the lists they were measured on", head, body)];
}

function missingSection(board) {
  const absent = board.absent.map((key) => board.subsets[key].name);
  const parts = [absent.length ? h("p", {}, `No run of ${absent.join(", ")}.`) : null];
  if (!board.gaps.length) return absent.length ? parts : null;
  const columns = board.gaps.map(({ subset, shots }) => JSON.stringify([subset, shots]));
  const places = Object.keys(board.subsets).flatMap((subset) => board.shot_order.map((shots) => [subset, shots])).filter((place) => columns.includes(JSON.stringify(place)));
  const head = h("tr", {}, h("th", { scope: "col", class: "corner" }, "Row"), places.map(([subset, shots]) => h("th", { scope: "col" }, `${board.subsets[subset].name} ${shotsWords(shots)}`)));
  const body = board.adaptations.filter((adaptation) => board.gaps.some((gap) => gap.adaptation === adaptation.key)).map((adaptation) => h("tr", {}, h("th", { scope: "row" }, adaptation.label),
    places.map(([subset, shots]) => {
      const gap = board.gaps.find((g) => g.adaptation === adaptation.key && g.subset === subset && g.shots === shots);
      return h("td", { class: gap ? "warn" : null }, gap ? (gap.seeds.length === 5 ? "no run" : `${seedKind(shots)} ${gap.seeds.join(", ")}`) : resultOf(board, adaptation.key, subset, shots) ? "complete" : MISSING);
    })));
  return [...parts, table("Seeds (0 to 4) without a finished run", head, body)];
}

function failedSection(board) {
  if (!board.failed.length) return null;
  const head = h("tr", {}, ["Run", "Row", "Data", "Error"].map((words) => h("th", { scope: "col" }, words)));
  const body = board.failed.map((run) => h("tr", {}, h("th", { scope: "row" }, h("code", {}, run.id)), h("td", {}, (adaptationOf(board, run.adaptation) || run).label),
    h("td", {}, `${board.subsets[run.subset].name} ${shotsWords(run.shots)}, ${run.seed_words}`), h("td", { class: "words" }, run.error)));
  return table("Runs that ended with an error", head, body);
}

function adaptationsSection(board) {
  return board.adaptations.map((adaptation) => {
    const results = board.results.filter((result) => result.adaptation === adaptation.key);
    const devices = [...new Set(results.flatMap((result) => result.cost.devices))];
    return h("details", {}, h("summary", {}, adaptation.label), h("p", {}, options(adaptation.config).join(", ")),
      devices.length ? h("p", {}, `Devices: ${devices.join("; ")}.`) : null,
      results.length ? h("p", { class: "muted" }, "Runs: ", results.flatMap((result) => result.runs.map((id) => [h("code", {}, id), " "]))) : null);
  });
}

// ---- the page ------------------------------------------------------------------------------------------------------------------

function render(board) {
  const figures = board.figures || {};
  const redraw = () => drawBoard(board);
  const sections = [
    ["board", "Board", board.results.length ? boardSection(board, redraw) : null],
    ["curves", "Score against shots", figuresSection(board, figures.curves, figures.legend, "Bars are the standard deviation over seeds; the dotted line is chance.")],
    ["cost", "Score against cost", figuresSection(board, figures.cost, figures.legend, "Main metric at the most shots. Seconds are of training and testing, without loading, decoding and cached features, and compare only runs of the same device; bars are the standard deviation over seeds.")],
    ["classes", "Class by class", classesSection(board)],
    ["comparison", "Paired comparison", comparisonSection(board)],
    ["published", "Published numbers", publishedSection(board)],
    ["missing", "Missing from the grid", missingSection(board)],
    ["failed", "Failed runs", failedSection(board)],
    ["notes", "What this page cannot show", board.notes.length ? h("ul", {}, board.notes.map((note) => h("li", {}, note))) : null],
    ["adaptations", "What was run", adaptationsSection(board)],
  ].filter(([, , content]) => content !== null && content !== undefined);
  document.getElementById("summary").replaceChildren(
    `${plural(board.counts.finished, "finished run")}, ${board.counts.failed} failed, ${plural(board.adaptations.length, "row")}`,
    board.until ? `; the last one ended ${board.until.slice(0, 10)}. ` : ". ", h("span", { id: "shown", role: "status" }));
  document.getElementById("main").replaceChildren(...sections.map(([id, title, content]) => h("section", { id, "aria-labelledby": `${id}-title` }, h("h2", { id: `${id}-title` }, title), content)));
  document.getElementById("contents").replaceChildren(...sections.map(([id, title]) => h("li", {}, h("a", { href: `#${id}` }, title))));
  if (board.results.length) redraw();
}

addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((details) => { details.open = true; }));
