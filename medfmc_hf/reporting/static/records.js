// Reads the results of a data set on the Hub: board.json, and the run records that are not in it yet.

const STUDENT = { 1: 12.706205, 2: 4.302653, 3: 3.182446, 4: 2.776445 }; // 97.5 % quantile of t; there are five splits at most
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

/** The same numbers as a cell made by `medfmc report`, but for what needs predictions. `bySeed`: for each split, a value of each run. */
function estimateOf(bySeed) {
  const values = bySeed.map(averageOf);
  const known = defined(values);
  const runs = bySeed.reduce((sum, own) => sum + defined(own).length, 0);
  const found = { values, mean: known.length ? average(known) : null, sd: null, seeds: known.length, runs, split_sd: null, training_sd: null,
    seed_interval: null, test_interval: null };
  if (known.length < 2) return found;
  found.sd = Math.sqrt(known.reduce((sum, value) => sum + (value - found.mean) ** 2, 0) / (known.length - 1));
  if (STUDENT[known.length - 1] !== undefined) {
    const half = (STUDENT[known.length - 1] * found.sd) / Math.sqrt(known.length);
    found.seed_interval = [Math.max(found.mean - half, 0), Math.min(found.mean + half, 1)];
  }
  return found;
}

function shotsOfRecord(config) {
  if (config.protocol === "transfer") return "train_20";
  return config.shots === null ? "pool" : String(config.shots);
}

/** What a row of new records is called: a record names its adaptation, and says what its options have that the recipe has not. */
function labelOf({ config, data, changed, backbone }) {
  const words = Object.entries(changed || {}).map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  if (config.protocol !== "clean") words.push(config.protocol);
  if (data && data.max_side) words.push(`shrunk to at most ${data.max_side} pixels a side`);
  const name = String((backbone && backbone.name) || config.model).split("/").filter(Boolean).at(-1);
  return [`${config.method} · ${name}`, ...words].join(", ");
}

/** Adds rows for records that the board does not hold, marked as new. */
function addRecords(board, records) {
  const rows = new Map();
  const left = { unfit: 0, older: 0 };
  for (const record of records) {
    const config = record.config || {};
    const test = record.scores && record.scores.test;
    const data = record.data || {};
    if (!board.subsets[config.subset] || !(record.status === "failed" || test)) continue;
    if (record.schema !== 2) { left.older += 1; continue; } // which experiment such a record is of, `medfmc report` finds out
    if (data.invented || data.incomplete) { left.unfit += 1; continue; } // as in medfmc report
    const key = `new ${record.adaptation || `${config.method} ${config.model}`}`;
    if (!rows.has(key)) rows.set(key, []);
    rows.get(key).push(record);
  }
  const names = new Set(board.adaptations.map((adaptation) => adaptation.label));
  for (const [key, members] of rows) {
    const { config } = members[0];
    let label = labelOf(members[0]);
    if (names.has(label)) label += `, ${key.slice(4, 12)}`;
    names.add(label);
    board.adaptations.push({ key, label, method: config.method, backbone: String(config.model), protocol: config.protocol, differs: {},
      config: { ...config, ...(members[0].data && members[0].data.max_side ? { images: `shrunk to ${members[0].data.max_side}` } : {}) }, live: true });
    const cells = new Map();
    for (const record of members.sort((a, b) => String(a.finished_at).localeCompare(String(b.finished_at)))) {
      const shots = shotsOfRecord(record.config);
      board.until = [board.until, record.finished_at || ""].sort().at(-1);
      if (record.status === "failed") {
        board.counts.failed += 1;
        board.failed.push({ id: record.id, adaptation: key, subset: record.config.subset, shots, seed: record.config.seed, error: record.error || "no reason recorded" });
        continue;
      }
      board.counts.finished += 1;
      const rowsTested = ((record.data || {}).rows || {}).test ?? null;
      const place = JSON.stringify([record.config.subset, shots]);
      if (!cells.has(place)) cells.set(place, { subset: record.config.subset, shots, rowsTested, runs: new Map() });
      cells.get(place).runs.set(`${record.config.seed} ${record.config.training_seed ?? ""}`, record);
    }
    for (const cell of cells.values()) board.cells.push(liveCell(board, key, cell));
  }
  if (left.unfit) board.notes.push(`${left.unfit} new records are on invented or incomplete data and are left out.`);
  if (left.older) board.notes.push(`${left.older} new records are of an older version and come with the next board.`);
  if (rows.size) board.notes.push("Rows marked new are read from run records that the board does not hold yet: the spread over seeds is theirs, "
    + "but test intervals, comparisons, curves and gaps need their predictions and come with the next board.");
}

function liveCell(board, adaptation, { subset, shots, rowsTested, runs }) {
  const records = [...runs.values()].sort((a, b) => a.config.seed - b.config.seed || (a.config.training_seed ?? 0) - (b.config.training_seed ?? 0));
  const seeds = [...new Set(records.map((record) => record.config.seed))];
  const ofSeeds = (read) => seeds.map((seed) => records.filter((record) => record.config.seed === seed).map((record) => read(record.scores.test)));
  const bySeed = (name) => ofSeeds((test) => test[name]);
  const metrics = Object.fromEntries([board.subsets[subset].metric, "auc", "score"].map((name) => [name, estimateOf(bySeed(name))]));
  const perClass = Object.fromEntries(board.subsets[subset].classes.map((name) => [name, Object.fromEntries(["auc", "ap", "recall", "positives"].map((column) =>
    [column, averageOf(ofSeeds((test) => ((test.per_class || {})[name] || {})[column]).map(averageOf))]))]));
  const cost = (read) => averageOf(records.map((record) => read(record.cost || {})));
  return {
    adaptation, subset, shots, seeds, runs: records.map((record) => record.id), test_rows: rowsTested, test_patients: null, metrics, per_class: perClass,
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
