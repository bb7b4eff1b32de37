// Reads the results of a data set on the Hub: board.json, and the run records that are not in it yet.

const AXES = ["subset", "shots", "seed", "predict_challenge", "model", "revision", "recipe"];
const STUDENT = { 1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445 }; // 97.5 % quantile of t; there are five draws at most
const AT_ONCE = 8;

async function fetchJson(url, missing = undefined) {
  const response = await fetch(url);
  if (response.status === 404 && missing !== undefined) return { value: missing, next: null };
  if (!response.ok) throw new Error(`${url} answered ${response.status}`);
  const next = /<([^>]+)>;\s*rel="next"/.exec(response.headers.get("Link") || "");
  return { value: await response.json(), next: next && next[1] };
}

/** Paths of all run records of a data set. The listing comes in pages. */
async function recordPaths(endpoint, records) {
  const paths = [];
  for (let url = `${endpoint}/api/datasets/${records}/tree/main?recursive=true`; url; ) {
    const { value, next } = await fetchJson(url);
    paths.push(...value.filter((entry) => entry.type === "file" && /(^|\/)run\.json$/.test(entry.path)).map((entry) => entry.path));
    url = next;
  }
  return paths;
}

async function readAll(urls, use) {
  const waiting = [...urls];
  const worker = async () => {
    while (waiting.length) {
      const url = waiting.shift();
      try { use((await fetchJson(url)).value); } catch (error) { console.warn(`left out: ${error.message}`); }
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
}

const average = (values) => values.reduce((a, b) => a + b, 0) / values.length;
const defined = (values) => values.filter((value) => typeof value === "number" && Number.isFinite(value));
const averageOf = (values) => (defined(values).length ? average(defined(values)) : null);

/** The same numbers as a cell made by `medfmc report`, but for what needs predictions. */
function estimateOf(values) {
  const known = defined(values);
  if (!known.length) return { mean: null, sd: null, draws: 0, draw_interval: null, test_interval: null };
  const mean = average(known);
  if (known.length === 1) return { mean, sd: null, draws: 1, draw_interval: null, test_interval: null };
  const sd = Math.sqrt(known.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (known.length - 1));
  const half = STUDENT[known.length - 1] === undefined ? null : (STUDENT[known.length - 1] * sd) / Math.sqrt(known.length);
  return { mean, sd, draws: known.length, draw_interval: half === null ? null : [mean - half, mean + half], test_interval: null };
}

function shotsOfRecord(config) {
  if (config.protocol === "transfer") return "train_20";
  return config.shots === null ? "pool" : String(config.shots);
}

/** Adds rows for records that the board does not hold, marked as new. */
function addRecords(board, records) {
  const rows = new Map();
  let unfit = 0;
  for (const record of records) {
    const config = record.config || {};
    const subset = board.subsets[config.subset];
    const test = record.scores && record.scores.test;
    if (![1, 2].includes(record.schema) || !subset || !(record.status === "failed" || test)) continue;
    const data = record.data || {};
    if (data.invented || data.incomplete) { unfit += 1; continue; } // as in medfmc report
    const images = data.max_side ? { images: `shrunk to at most ${data.max_side} pixels a side` } : {};
    const chosen = Object.fromEntries(Object.entries(config).filter(([name]) => !AXES.includes(name)).sort());
    const key = `new ${JSON.stringify([record.schema, chosen, images, (record.backbone || {}).fingerprint || config.model])}`;
    if (!rows.has(key)) rows.set(key, { config: { model: config.model, revision: config.revision, ...chosen, ...images }, records: [] });
    rows.get(key).records.push(record);
  }
  for (const [key, { config, records: members }] of rows) {
    const label = `${config.method} · ${String(config.model).split("/").filter(Boolean).at(-1)}${config.images ? `, ${config.images}` : ""}`;
    board.settings.push({ key, label, method: config.method, backbone: String(config.model), protocol: config.protocol, differs: {}, config, live: true });
    const cells = new Map();
    for (const record of members.sort((a, b) => String(a.finished_at).localeCompare(String(b.finished_at)))) {
      const shots = shotsOfRecord(record.config);
      board.until = [board.until, record.finished_at || ""].sort().at(-1);
      if (record.status === "failed") {
        board.counts.failed += 1;
        board.failed.push({ id: record.id, setting: key, subset: record.config.subset, shots, seed: record.config.seed, error: record.error || "no reason recorded" });
        continue;
      }
      board.counts.finished += 1;
      const rowsTested = ((record.data || {}).rows || {}).test ?? null;
      const place = JSON.stringify([record.config.subset, shots]);
      if (!cells.has(place)) cells.set(place, { subset: record.config.subset, shots, rowsTested, draws: new Map() });
      cells.get(place).draws.set(record.config.seed, record);
    }
    for (const cell of cells.values()) board.cells.push(liveCell(board, key, cell));
  }
  const live = board.settings.filter((setting) => setting.live);
  const names = [...new Set(board.settings.flatMap((setting) => Object.keys(setting.config)))].filter((name) => !["method", "model"].includes(name));
  const varying = names.filter((name) => new Set(board.settings.map((setting) => JSON.stringify(setting.config[name] ?? null))).size > 1);
  for (const setting of live) setting.differs = Object.fromEntries(varying.map((name) => [name, setting.config[name] ?? null]));
  if (unfit) board.notes.push(`${unfit} new records are on invented or incomplete data and are left out.`);
  if (live.length) board.notes.push("Rows marked new are read from run records that the board does not hold yet: the spread over draws is theirs, "
    + "but test-set intervals, comparisons, curves and gaps need their predictions and come with the next board.");
}

function liveCell(board, setting, { subset, shots, rowsTested, draws }) {
  const seeds = [...draws.keys()].sort((a, b) => a - b);
  const records = seeds.map((seed) => draws.get(seed));
  const tests = records.map((record) => record.scores.test);
  const metrics = Object.fromEntries([board.subsets[subset].metric, "auc", "score"].map((name) => [name, estimateOf(tests.map((test) => test[name]))]));
  const perClass = Object.fromEntries(board.subsets[subset].classes.map((name) => [name, Object.fromEntries(["auc", "ap", "recall", "positives"].map((column) =>
    [column, averageOf(tests.map((test) => ((test.per_class || {})[name] || {})[column]))]))]));
  const cost = (read) => averageOf(records.map((record) => read(record.cost || {})));
  return {
    setting, subset, shots, seeds, runs: records.map((record) => record.id), test_rows: rowsTested, test_patients: null, metrics, per_class: perClass,
    cost: { trainable_parameters: cost((c) => c.trainable_parameters), seconds: cost((c) => (c.seconds || {}).total),
      devices: [...new Set(records.map((record) => (record.cost || {}).device).filter(Boolean))] },
  };
}

async function start() {
  const source = JSON.parse(document.getElementById("data").textContent);
  const asked = new URLSearchParams(location.search).get("records");
  const records = asked && /^\w[\w.-]*\/\w[\w.-]*$/.test(asked) ? asked : source.records;
  try {
    const paths = await recordPaths(source.endpoint, records);
    const files = `${source.endpoint}/datasets/${records}/resolve/main`;
    const { value: board } = await fetchJson(`${files}/board.json`, source.empty);
    if (board.schema !== source.empty.schema) throw new Error(`its board has layout ${board.schema}; this page reads ${source.empty.schema}`);
    const known = new Set([...board.cells.flatMap((cell) => cell.runs), ...board.failed.map((run) => run.id), ...(board.left_out || [])]);
    const unknown = paths.filter((path) => !known.has((/-([0-9a-f]{16})\/run\.json$/.exec(path) || [])[1]));
    const found = [];
    await readAll(unknown.map((path) => `${files}/${path.split("/").map(encodeURIComponent).join("/")}`), (record) => {
      if (!known.has(record.id)) found.push(record);
      known.add(record.id);
    });
    addRecords(board, found.sort((a, b) => String(a.id).localeCompare(String(b.id))));
    render(board);
    document.getElementById("summary").append(" Results of ", h("a", { href: `${source.endpoint}/datasets/${records}` }, records), ".");
    if (!board.cells.length) document.getElementById("main").prepend(h("p", {}, `The data set ${records} holds no finished run yet.`));
  } catch (error) {
    document.getElementById("summary").textContent = `The results of the data set ${records} could not be read (${error.message}). Is it there, and public?`;
  }
}
