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

/** The same numbers as `medfmc report` works out, but for what needs predictions. `bySplit`: for each split, a value of each run. */
function estimateOf(bySplit) {
  const known = bySplit.map(defined).filter((own) => own.length);
  const means = known.map(average);
  const found = { values: bySplit.map(averageOf), mean: averageOf(means), sd: null, seeds: known.length, runs: known.flat().length, split_sd: null,
    training_sd: null, seed_interval: null, test_interval: null };
  const squares = (values) => values.reduce((sum, value) => sum + (value - average(values)) ** 2, 0);
  const freedom = found.runs - known.length;
  const within = freedom ? known.map(squares).reduce((a, b) => a + b) / freedom : null; // the variance over training seeds of one split
  if (freedom) found.training_sd = Math.sqrt(within);
  if (means.length < 2) return found;
  found.sd = Math.sqrt(squares(means) / (means.length - 1));
  if (freedom) found.split_sd = Math.sqrt(Math.max(found.sd ** 2 - within * average(known.map((own) => 1 / own.length)), 0));
  const half = (STUDENT[means.length - 1] * found.sd) / Math.sqrt(means.length);
  found.seed_interval = [Math.max(found.mean - half, 0), Math.min(found.mean + half, 1)];
  return found;
}

// ---- which runs are seeds of one experiment, as medfmc_hf.evaluation.experiments says it ------------------------------------------

function shotsOfRecord(config) {
  if (config.protocol === "transfer") return "train_20";
  return config.shots === null ? "pool" : String(config.shots);
}

/** Seeds of the split and of the training; where there is one support set, a seed can only be that of the training. */
function seedsOfRecord(config) {
  const training = config.training_seed ?? config.seed;
  return config.shots === null || config.protocol === "transfer" ? [0, training] : [config.seed, training];
}

/** Seconds of training and testing alone, and numbers that were trained or fitted, as `RunRecord` of `medfmc_hf/runs/record.py` has them. */
const SHARED_STAGES = ["start", "data", "features", "frozen blocks"];
const TRAIN_FREE = ["prototype", "linear", "knn"];
function ownSeconds({ seconds = {} }) {
  return seconds.total === undefined ? null : Math.max(0, seconds.total - SHARED_STAGES.reduce((sum, name) => sum + (seconds[name] || 0), 0));
}
function trainedParameters({ config, cost = {} }) {
  const isOld = TRAIN_FREE.includes(config.method) && cost.trainable_parameters === cost.total_parameters;
  return isOld ? null : cost.trainable_parameters ?? null;
}

/** Images, test rows, and how many images and patients these are; null where a record does not say. */
const testSetOf = ({ data }) => [data.images_sha256 ?? null, data.test_sha256 ?? null, (data.rows || {}).test ?? null, (data.patients || {}).test ?? null];
const isPart = (less, more) => less.every((value, i) => value === null || value === more[i]);

/** For each record the number of its test set among those of its subset and protocol; most have number 0. */
function testSetNumbers(records) {
  const numbers = new Map();
  for (const own of groupBy(records, ({ config }) => `${config.subset} ${config.protocol}`).values()) {
    const counts = groupBy(own, (record) => JSON.stringify(testSetOf(record)));
    const ranked = [...counts.keys()].sort((a, b) => counts.get(b).length - counts.get(a).length || (a < b ? -1 : 1)).map((set) => JSON.parse(set));
    const sets = ranked.filter((set) => !ranked.some((other) => other !== set && isPart(set, other)));
    for (const record of own) numbers.set(record, sets.findIndex((set) => isPart(testSetOf(record), set)));
  }
  return numbers;
}

const imagesOf = ({ data }) => (data.max_side ? `shrunk to at most ${data.max_side} pixels a side` : null);

/** What a row of new records is called: a record names its adaptation, and says what its options have that the recipe has not. */
function labelOf(record) {
  const { config, changed, backbone } = record;
  const words = Object.entries(changed || {}).map(([name, value]) => `${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`);
  if (config.protocol !== "clean") words.push(config.protocol);
  if (imagesOf(record)) words.push(imagesOf(record));
  const name = String((backbone && backbone.name) || config.model).split("/").filter(Boolean).at(-1);
  return [`${config.method} · ${name}`, ...words].join(", ");
}

function groupBy(things, keyOf) {
  const groups = new Map();
  for (const thing of things) groups.set(keyOf(thing), [...(groups.get(keyOf(thing)) || []), thing]);
  return groups;
}

/** Adds rows for records that the board does not hold, marked as new. */
function addRecords(board, records) {
  const left = { "are on invented or incomplete data and are left out": 0, "do not say of which experiment they are, or are of an older version, and come with the next board": 0,
    "finished without test scores and are left out": 0 };
  const [unfit, unsaid, scoreless] = Object.keys(left);
  const finished = [];
  for (const record of records.map((each) => ({ ...each, config: each.config || {}, data: each.data || {} }))) {
    const { config, data } = record;
    if (!board.subsets[config.subset]) continue; // not ours: anybody may add a file
    if (data.invented || data.incomplete) left[unfit] += 1; // as in medfmc report
    else if (record.status === "failed") {
      const [seed, training] = seedsOfRecord(config);
      const shots = shotsOfRecord(config);
      const words = [...(seedKind(shots) === "split seed" ? [`split seed ${seed}`] : []), ...(seedKind(shots) === "training seed" || training !== seed ? [`training seed ${training}`] : [])];
      board.counts.failed += 1;
      board.failed.push({ id: record.id, label: labelOf(record), subset: config.subset, shots, seed, seed_words: words.join(", "), error: record.error || "no reason recorded" });
    } else if (!record.scores || !record.scores.test) left[scoreless] += 1;
    else if (record.schema !== 2 || !record.adaptation) left[unsaid] += 1; // medfmc report finds it out
    else finished.push(record);
  }
  board.counts.finished += finished.length;
  board.until = [board.until, ...records.map((record) => record.finished_at || "")].sort().at(-1);
  const numbers = testSetNumbers(finished);
  const rows = groupBy(finished, (record) => `new ${record.adaptation} ${numbers.get(record)}`);
  const names = new Set(board.adaptations.map((adaptation) => adaptation.label));
  for (const [key, members] of rows) {
    const known = adaptationOf(board, members[0].adaptation); // a row of the board, whose seeds these are, too
    const number = numbers.get(members[0]);
    let label = (known ? `${known.label}, runs not in the board` : labelOf(members[0])) + (number ? `, test set ${number + 1}` : "");
    if (names.has(label)) label += `, ${members[0].adaptation}`;
    names.add(label);
    const { subset, shots, seed, training_seed, predict_challenge, ...options } = members[0].config;
    const { method, model, protocol } = options;
    board.adaptations.push({ key, label, method, backbone: String(model), protocol, differs: {}, config: { ...options, images: imagesOf(members[0]) }, live: true });
    for (const runs of groupBy(members, (record) => `${record.config.subset} ${shotsOfRecord(record.config)} ${numbers.get(record)}`).values()) {
      board.results.push(liveResult(board, key, runs));
    }
  }
  for (const [words, number] of Object.entries(left)) if (number) board.notes.push(`${number} new records ${words}.`);
  if (rows.size) board.notes.push("Rows marked new are read from run records that the board does not hold yet: the spread over seeds is theirs, "
    + "but test intervals, comparisons, curves and gaps need their predictions and come with the next board.");
}

/** What the runs of an experiment amount to. Of two runs of the same seeds the one that finished last counts. */
function liveResult(board, adaptation, runs) {
  const latest = new Map();
  for (const record of [...runs].sort((a, b) => String(a.finished_at).localeCompare(String(b.finished_at)) || String(a.id).localeCompare(String(b.id)))) {
    const replaced = latest.get(String(seedsOfRecord(record.config)));
    if (replaced) board.notes.push(`Run ${replaced.id} is not shown, for another run of the same seed finished later.`);
    latest.set(String(seedsOfRecord(record.config)), record);
  }
  const seeds = (record) => seedsOfRecord(record.config);
  const records = [...latest.values()].sort((a, b) => seeds(a)[0] - seeds(b)[0] || seeds(a)[1] - seeds(b)[1]);
  const { config, data } = records[0];
  const splits = [...groupBy(records, (record) => seeds(record)[0])];
  const bySplit = (read) => splits.map(([, own]) => own.map((record) => read(record.scores.test)));
  const names = [board.subsets[config.subset].metric, "auc", "score"];
  const ofClass = (name, column) => averageOf(bySplit((test) => ((test.per_class || {})[name] || {})[column]).map(averageOf));
  const cost = (read) => averageOf(records.map((record) => read(record.cost || {})));
  return {
    adaptation, subset: config.subset, shots: shotsOfRecord(config), seeds: splits.map(([seed]) => seed), training_seeds: records.map((record) => seeds(record)[1]),
    runs: records.map((record) => record.id), test_rows: (data.rows || {}).test ?? null, test_patients: (data.patients || {}).test ?? null,
    metrics: Object.fromEntries(names.map((name) => [name, estimateOf(bySplit((test) => test[name]))])),
    per_class: Object.fromEntries(board.subsets[config.subset].classes.map((name) =>
      [name, Object.fromEntries(["auc", "ap", "recall", "positives", "negatives"].map((column) => [column, ofClass(name, column)]))])),
    cost: { trainable_parameters: averageOf(records.map(trainedParameters)), seconds: cost((c) => (c.seconds || {}).total), own_seconds: cost(ownSeconds),
      devices: [...new Set(records.map((record) => (record.cost || {}).device).filter(Boolean))].sort() },
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
    const known = new Set([...board.results.flatMap((result) => result.runs), ...board.failed.map((run) => run.id), ...(board.left_out || [])]);
    const unknown = paths.filter((path) => !known.has((/-([0-9a-f]{16})\/run\.json$/.exec(path) || [])[1]));
    const found = new Map();
    await readAll(unknown.map((path) => `${files}/${path.split("/").map(encodeURIComponent).join("/")}`), (record) => {
      if (!known.has(record.id) && (!found.has(record.id) || found.get(record.id).status === "failed")) found.set(record.id, record); // a copy counts once
    });
    addRecords(board, [...found.values()].sort((a, b) => String(a.id).localeCompare(String(b.id))));
    render(board);
    document.getElementById("summary").append(" Results of ", h("a", { href: `${source.endpoint}/datasets/${records}` }, records), ".");
    if (!board.results.length) document.getElementById("main").prepend(h("p", {}, `The data set ${records} holds no finished run yet.`));
  } catch (error) {
    document.getElementById("summary").textContent = `The results of the data set ${records} could not be read (${error.message}). Is it there, and public?`;
  }
}
