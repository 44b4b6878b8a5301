//! The results as Markdown for readers and as JSON for programs.

use run_record::{Evaluation, StepResults};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;

use super::comparison::{Entry, METRICS, entries, reference};
use super::experiment::{Experiment, Row};
use super::results::{RowResults, Statistic};
use super::table::Table;

/// Results and where they come from.
pub struct Document<'a> {
    /// The command that wrote it.
    pub command: String,
    pub commit: String,
    pub machine: String,
    pub date: String,
    /// What is known of near-duplicates.
    pub leaks: String,
    pub experiment: &'a Experiment,
    /// One for each row.
    pub results: Vec<RowResults>,
    /// Runs and evaluations that came to nothing, with the reason.
    pub failures: Vec<String>,
}

/// A column of evaluations.
pub struct Column<T> {
    /// TARGET stands for the organ.
    title: &'static str,
    /// Its name in data.
    pub key: &'static str,
    digits: usize,
    of: fn(&T) -> Option<f64>,
}

/// Of a store: in domain, or across.
pub fn columns(experiment: &Experiment, store: usize) -> Vec<&'static Column<Evaluation>> {
    let columns: &[_] = if store == 0 { &OWN } else { &ACROSS };
    let with_volumes = experiment.stores[store].volumes.is_some();
    columns.iter().chain(NATIVE.iter().filter(|_| with_volumes)).collect()
}

impl Column<Evaluation> {
    /// Its value in a row: of true boxes there are the overlaps alone.
    pub fn of_row(&self, row: &Row) -> fn(&Evaluation) -> Option<f64> {
        if row.model.oracle_of.is_some() && !self.key.starts_with("cam_box.") { |_| None } else { self.of }
    }
}

const fn column<T>(title: &'static str, key: &'static str, digits: usize, of: fn(&T) -> Option<f64>) -> Column<T> {
    Column { title, key, digits, of }
}

const WHOLE: Column<Evaluation> =
    column("whole image as box", "control_whole_image.dice_liver", 4, |it| it.control_whole_image.as_ref()?.dice_liver);
const CENTRAL: Column<Evaluation> = column("central half as box", "control_central_half.dice_liver", 4, |it| {
    it.control_central_half.as_ref()?.dice_liver
});
const ORACLE: Column<Evaluation> =
    column("oracle box", "oracle_box.dice_liver", 4, |it| it.oracle_box.as_ref()?.dice_liver);
const PRETRAINED: Column<Evaluation> =
    column("pretrained weights, oracle box", "pretrained_weights.oracle_dice_liver", 4, |it| {
        it.pretrained_weights.as_ref()?.oracle_dice_liver
    });
const VOLUME: Column<Evaluation> = column("Dice (volume)", "cam_box.dice_volume", 4, |it| it.cam_box.dice_volume);
const BOX_IOU: Column<Evaluation> = column("box IoU", "cam_box.box_iou", 3, |it| it.cam_box.box_iou);
const MISSED: Column<Evaluation> = column("missed", "counts.missed", 1, |it| Some(it.counts.missed as f64));

/// In domain.
static OWN: [Column<Evaluation>; 8] = [
    column("**CAM box: Dice (TARGET slices)**", "cam_box.dice_liver", 4, |it| it.cam_box.dice_liver),
    VOLUME,
    BOX_IOU,
    MISSED,
    WHOLE,
    CENTRAL,
    ORACLE,
    PRETRAINED,
];

/// On another data set.
static ACROSS: [Column<Evaluation>; 10] = [
    column("**CAM box: Dice (all slices)**", "cam_box.dice_all", 4, |it| it.cam_box.dice_all),
    column("Dice (TARGET slices)", "cam_box.dice_liver", 4, |it| it.cam_box.dice_liver),
    VOLUME,
    BOX_IOU,
    column("false positive slices", "counts.false_positive", 1, |it| Some(it.counts.false_positive as f64)),
    MISSED,
    WHOLE,
    CENTRAL,
    ORACLE,
    PRETRAINED,
];

/// On the volumes' own voxels.
static NATIVE: [Column<Evaluation>; 4] = [
    column("Dice (own voxels)", "native.dice", 4, |it| it.native.as_ref()?.dice),
    column("surface Dice (2 mm)", "native.surface_dice", 4, |it| it.native.as_ref()?.surface_dice),
    column("HD95 (mm)", "native.hd95_mm", 2, |it| it.native.as_ref()?.hd95_mm),
    column("ASSD (mm)", "native.assd_mm", 2, |it| it.native.as_ref()?.assd_mm),
];

const MILLISECONDS: fn(&StepResults) -> Option<f64> = |step| step.milliseconds_per_slice;

/// Of a step of the inference.
const STEP: [Column<StepResults>; 6] = [
    column("Dice (all slices)", "dice_all", 4, |step| step.dice_all),
    column("Dice (TARGET slices)", "dice_liver", 4, |step| step.dice_liver),
    column("Dice (volume)", "dice_volume", 4, |step| step.dice_volume),
    column("false positive slices", "false_positive", 1, |step| Some(step.false_positive as f64)),
    column("missed", "missed", 1, |step| Some(step.missed as f64)),
    column("ms a slice", "milliseconds_per_slice", 1, MILLISECONDS),
];

const NOTE: &str = "\
CAM box: the classifier's own boxes, no ground truth; what counts. Whole image and central half: boxes that depend on nothing, with the same
trained weights and the same calls which slices show the TARGET; Dice over TARGET slices. Oracle box: the true box, enlarged a little, with
the trained weights and with the pretrained ones; Dice over TARGET slices. Minutes are of training; what an earlier run encoded
already is not in them.";

const OVER: &str = "\
Figures are mean ± standard deviation over seeds (divided by n − 1). Intervals are over patients (bootstrap of whole patients, BCa, 10,000 \
resamples), after each slice's values were averaged over seeds; a volume's mean stands for each of its slices. Tests are paired, by the signs of the patients' differences from the first model with \
as many labelled slices (with its most where it has no such row); p is corrected by Holm over all tests on a data set. \"Too few patients\" says that no difference, however \
large, could have been shown.";

const STEP_NOTE: &str = "Figures are after each step, with those before it; milliseconds are the step's own.";

const NOT_MEASURED: &str = "
The first step's, which are with encoder and classifier, are not measured where evaluations share what the encoder made of the slices:
`evaluate` without `--embeddings` has them.";

impl Document<'_> {
    pub fn markdown(&self) -> String {
        let Experiment { stores, rows, title, .. } = self.experiment;
        let mut text = format!(
            "# {title}\n\n```sh\n{}\n```\n\nCommit {}, {}. Machine: {}. {}{OVER}\n\n{}\n\n{}\n",
            self.command,
            self.commit,
            self.date,
            self.machine,
            self.trained(),
            self.of_target(NOTE),
            self.leaks,
        );
        for index in 0..stores.len() {
            // Writing to a text can't fail.
            let _ = write!(text, "\n## {}\n\n{}", self.heading(index), self.counts(index));
            text += &self.table_of(index).markdown();
            let (table, reasons) = self.patients_table(index);
            let _ = write!(text, "\nOver patients:\n\n{}", table.markdown());
            if !reasons.is_empty() {
                text += "\nNo interval or no comparison:\n\n";
                text.extend(reasons.into_iter().map(|reason| format!("- {reason}\n")));
            }
        }
        let (of, more) = (rows[0].name(), self.not_measured());
        let _ = writeln!(text, "\n## The steps of the inference: {of}\n\n{STEP_NOTE}{more}");
        for (index, store) in stores.iter().enumerate() {
            let _ = write!(text, "\n{}:\n\n{}", store.label(), self.steps_table(index).markdown());
        }
        text += "\n## The models\n\n";
        text += &self.models_table().markdown();
        if !self.failures.is_empty() {
            text += "\n## Failed\n\n";
            text.extend(self.failures.iter().map(|failure| format!("- {failure}\n")));
        }
        text
    }

    pub fn json(&self) -> Value {
        let stores = 0..self.experiment.stores.len();
        let compared: Vec<_> = stores.map(|store| entries(self.experiment, &self.results, store)).collect();
        let rows = self.experiment.rows.iter().zip(&self.results).enumerate().map(|(at, (row, results))| {
            let stores = self.experiment.stores.iter().enumerate();
            let evaluations = stores.map(|(index, store)| {
                let figures: serde_json::Map<_, _> = columns(self.experiment, index)
                    .iter()
                    .map(|column| (column.key.to_owned(), results.figure(index, column.of_row(row)).as_json()))
                    .collect();
                let steps = results.steps(index).into_iter().map(|name| {
                    let mut step = serde_json::Map::from_iter([("name".to_owned(), json!(name))]);
                    let figures = STEP.iter().map(|c| (c.key.to_owned(), results.step(index, &name, c.of).as_json()));
                    step.extend(figures);
                    Value::from(step)
                });
                json!({
                    "store": store.path,
                    "dataset": store.dataset,
                    "split": if index == 0 { "test" } else { "all" },
                    "development": store.development,
                    "from_the_paper_on_other_data": row.of_paper(index),
                    "over_patients": over_patients(&compared[index][at]),
                    "figures": figures,
                    "steps": steps.collect::<Vec<_>>(),
                })
            });
            json!({
                "key": row.model.key,
                "labelled_slices": row.budget.map(|budget| budget.to_string()),
                "name": row.model.name,
                "note": row.model.note,
                "config": row.config,
                "set": row.set(),
                "compared_with": reference(&self.experiment.rows, at).map(|first| self.experiment.rows[first].key()),
                "seeds": results.runs.iter().map(|run| run.seed).collect::<Vec<_>>(),
                "training_minutes": results.minutes().as_json(),
                "evaluations": evaluations.collect::<Vec<_>>(),
            })
        });
        json!({
            "title": self.experiment.title,
            "command": self.command,
            "commit": self.commit,
            "date": self.date,
            "machine": self.machine,
            "leaks": self.leaks,
            "rows": rows.collect::<Vec<_>>(),
            "failures": self.failures,
        })
    }

    /// What each row's runs are called and how they were made.
    pub fn models_table(&self) -> Table {
        let titles = ["row", "runs", "configuration and overrides", "note"];
        let mut table = Table::of_words(titles.map(str::to_owned));
        for row in &self.experiment.rows {
            let config = std::iter::once(format!("`{}`", row.config.display()));
            let set: Vec<String> = config.chain(row.set().iter().map(|item| format!("`{item}`"))).collect();
            let note = row.model.note.clone().unwrap_or_default();
            table.row([row.name(), format!("`{}-SEED`", row.key()), set.join(", "), note]);
        }
        table
    }

    /// What the tables' figures are.
    pub fn explained(&self) -> [String; 2] {
        [OVER.to_owned(), self.of_target(NOTE)]
    }

    /// What a store's tables are of.
    pub fn heading(&self, store: usize) -> String {
        let what = if store == 0 { "In domain: the test patients of" } else { "Across: all of" };
        format!("{what} {}", self.experiment.stores[store].label())
    }

    fn of_target(&self, text: &str) -> String {
        text.replace("TARGET", &self.experiment.stores[0].target)
    }

    /// A note where not every run has measured its first step.
    fn not_measured(&self) -> &'static str {
        let Some(results) = self.results.first() else { return "" };
        let is_measured = |store: usize| {
            let first = results.steps(store).into_iter().next();
            first.is_none_or(|name| results.step(store, &name, MILLISECONDS).count() == results.runs.len())
        };
        if (0..self.experiment.stores.len()).all(is_measured) { "" } else { NOT_MEASURED }
    }

    /// Where and by what the runs were trained, which may have been another day.
    pub fn trained(&self) -> String {
        let records = || self.results.iter().flat_map(|row| &row.runs).map(|run| &run.record);
        let devices: BTreeSet<&str> = records().map(|record| record.device.as_str()).collect();
        let commits: BTreeSet<&str> = records().filter_map(|record| record.commit.as_deref()).collect();
        let [devices, commits] = [devices, commits].map(|set| set.into_iter().collect::<Vec<_>>().join(", "));
        if devices.is_empty() {
            return String::new();
        }
        let at = if commits.is_empty() { String::new() } else { format!(", by the program of commit {commits}") };
        format!("Trained on {devices}{at}. ")
    }

    /// Slices of a store, as the first evaluation has counted them.
    pub fn counts(&self, store: usize) -> String {
        let runs = self.results.iter().flat_map(|row| &row.runs);
        let Some(it) = { runs }.find_map(|run| run.evaluations[store].as_ref()) else { return String::new() };
        let target = &self.experiment.stores[store].target;
        let (slices, with, volumes) = (it.counts.slices, it.counts.liver_slices, it.per_volume.len());
        format!("{slices} slices of {volumes} volumes, {with} with {target}.\n\n")
    }

    pub fn table_of(&self, store: usize) -> Table {
        let columns = columns(self.experiment, store);
        let titles = columns.iter().map(|column| self.of_target(column.title));
        let minutes = (store == 0).then(|| "minutes".to_owned());
        let mut table = Table::new(["row".to_owned(), "seeds".to_owned()].into_iter().chain(titles).chain(minutes));
        for (row, results) in self.experiment.rows.iter().zip(&self.results) {
            let have = results.runs.len();
            let seeds = if have as u64 == row.seeds { have.to_string() } else { format!("{have} of {}", row.seeds) };
            let figures = columns.iter().map(|c| figure(&results.figure(store, c.of_row(row)), c.digits, have));
            let minutes = (store == 0).then(|| figure(&results.minutes(), 1, have));
            table.row([row.name(), seeds].into_iter().chain(figures).chain(minutes));
            if let Some(of_paper) = row.of_paper(store) {
                let name = format!("{}: from the paper, on other data", row.name());
                let figures = columns
                    .iter()
                    .map(|column| if column.key == "cam_box.dice_liver" { of_paper.to_string() } else { "–".into() });
                let minutes = (store == 0).then(|| "–".to_owned());
                table.row([name, String::new()].into_iter().chain(figures).chain(minutes));
            }
        }
        table
    }

    /// Intervals over patients and what the paired tests say.
    pub fn patients_table(&self, store: usize) -> (Table, Vec<String>) {
        let rows = &self.experiment.rows;
        let titles = METRICS.map(|metric| self.of_target(metric.title()));
        let against = rows.first().map_or_else(String::new, |row| format!("against {}", row.model.name));
        let columns = titles.into_iter().flat_map(|title| [format!("{title}, 95 % interval"), against.clone()]);
        let mut table = Table::new(["row".to_owned(), "patients".to_owned()].into_iter().chain(columns));
        let mut reasons = BTreeSet::new();
        for (row, of) in rows.iter().zip(entries(self.experiment, &self.results, store)) {
            let patients = of.iter().find_map(|entry| match entry {
                Entry::Known(cell) => Some(cell.patients.to_string()),
                _ => None,
            });
            let cells = of.iter().flat_map(|entry| match entry {
                Entry::Nothing => ["–".to_owned(), "–".to_owned()],
                Entry::Known(cell) => {
                    let interval = cell.interval.map_or_else(|| "one patient".into(), |it| format!("{it:.4}"));
                    let test = cell.comparison.map_or_else(|| "–".into(), |it| format!("{it:.4}"));
                    [format!("{:.4} {interval}", cell.estimate), test]
                }
                Entry::Unknown(reason) => {
                    reasons.insert(format!("{}: {reason}", row.name()));
                    ["–".to_owned(), "–".to_owned()]
                }
            });
            let first = [row.name(), patients.unwrap_or_else(|| "–".into())];
            table.row(first.into_iter().chain(cells));
        }
        (table, reasons.into_iter().collect())
    }

    pub fn steps_table(&self, store: usize) -> Table {
        let titles = STEP.iter().map(|column| self.of_target(column.title));
        let mut table = Table::new(["step".to_owned()].into_iter().chain(titles));
        let Some(results) = self.results.first() else { return table };
        for name in results.steps(store) {
            let of = |c: &Column<StepResults>| figure(&results.step(store, &name, c.of), c.digits, results.runs.len());
            table.row([name.clone()].into_iter().chain(STEP.iter().map(of)));
        }
        table
    }
}

fn over_patients(entries: &[Entry; 2]) -> Value {
    let of = |entry: &Entry| match entry {
        Entry::Nothing => Value::Null,
        Entry::Known(cell) => json!(cell),
        Entry::Unknown(reason) => json!({ "none_since": reason }),
    };
    json!({ "dice_liver": of(&entries[0]), "dice_volume": of(&entries[1]) })
}

/// Mean and deviation, and the number of runs where it is not that of the row.
fn figure(of: &Statistic, digits: usize, runs: usize) -> String {
    let Some(mean) = of.mean() else { return "–".into() };
    let deviation = of.deviation().map_or_else(String::new, |deviation| format!(" ± {deviation:.digits$}"));
    let count = if of.count() == runs { String::new() } else { format!(" ({} of {runs})", of.count()) };
    format!("{mean:.digits$}{deviation}{count}")
}
