//! The results as Markdown for readers and as JSON for programs.

use run_record::{Evaluation, StepResults};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;

use super::experiment::Experiment;
use super::results::{RowResults, Statistic};

/// Results and where they come from.
pub struct Document<'a> {
    pub title: String,
    /// The command that wrote it.
    pub command: String,
    pub commit: String,
    pub machine: String,
    pub date: String,
    pub experiment: &'a Experiment,
    /// One for each row.
    pub results: Vec<RowResults>,
    /// Runs and evaluations that came to nothing, with the reason.
    pub failures: Vec<String>,
}

/// A column of evaluations.
struct Column<T> {
    /// TARGET stands for the organ.
    title: &'static str,
    /// Its name in JSON.
    key: &'static str,
    digits: usize,
    of: fn(&T) -> Option<f64>,
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
const OWN: [Column<Evaluation>; 8] = [
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
const ACROSS: [Column<Evaluation>; 10] = [
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

pub const HEADING: &str = "# Ablation: ";

const NOTE: &str = "\
CAM box: the classifier's own boxes, no ground truth; what counts. Whole image and central half: boxes that depend on nothing, with the same
trained weights and the same calls which slices show the TARGET; Dice over TARGET slices. Oracle box: the true box, enlarged a little, with
the trained weights and with the pretrained ones; Dice over TARGET slices. Minutes are of training; what an earlier run encoded
already is not in them.";

const STEP_NOTE: &str = "Figures are after each step, with those before it; milliseconds are the step's own.";

const NOT_MEASURED: &str = "
The first step's, which are with encoder and classifier, are not measured where evaluations share what the encoder made of the slices:
`evaluate` without `--embeddings` has them.";

impl Document<'_> {
    pub fn markdown(&self) -> String {
        let Experiment { stores, rows, seeds, steps_of, .. } = self.experiment;
        let over = match seeds {
            1 => "Seed 0 alone.".to_owned(),
            _ => format!("Seeds 0 to {}; mean ± standard deviation over them (divided by n − 1).", seeds - 1),
        };
        let mut text = format!(
            "{HEADING}{}\n\n```sh\n{}\n```\n\nCommit {}, {}. Machine: {}. {}{over}\n\n{}\n",
            self.title,
            self.command,
            self.commit,
            self.date,
            self.machine,
            self.trained(),
            self.of_target(NOTE),
        );
        for (index, store) in stores.iter().enumerate() {
            let what = if index == 0 { "In domain: the test patients of" } else { "Across: all of" };
            // Writing to a text can't fail.
            let _ = write!(text, "\n## {what} `{}`\n\n{}", store.path.display(), self.counts(index));
            text += &self.table_of(index);
        }
        let (of, more) = (&rows[*steps_of].name, self.not_measured());
        let _ = writeln!(text, "\n## The steps of the inference: {of}\n\n{STEP_NOTE}{more}");
        for (index, store) in stores.iter().enumerate() {
            let _ = write!(text, "\n`{}`:\n\n{}", store.path.display(), self.steps_table(index));
        }
        text += "\n## The rows\n\n| row | key | overrides |\n| --- | --- | --- |\n";
        for row in rows {
            let config = row.config.as_ref().map(|path| format!("`{}`", path.display()));
            let set = row.set.iter().map(|item| format!("`{item}`"));
            let all: Vec<String> = config.into_iter().chain(set).collect();
            text += &line([cell(&row.name), format!("`{}`", row.key), cell(&all.join(", "))]);
        }
        if !self.failures.is_empty() {
            text += "\n## Failed\n\n";
            text.extend(self.failures.iter().map(|failure| format!("- {failure}\n")));
        }
        text
    }

    pub fn json(&self) -> Value {
        let rows = self.experiment.rows.iter().zip(&self.results).map(|(row, results)| {
            let stores = self.experiment.stores.iter().enumerate();
            let evaluations = stores.map(|(index, store)| {
                let columns = if index == 0 { OWN.as_slice() } else { &ACROSS };
                let figures: serde_json::Map<_, _> = columns
                    .iter()
                    .map(|column| (column.key.to_owned(), results.figure(index, column.of).as_json()))
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
                    "figures": figures,
                    "steps": steps.collect::<Vec<_>>(),
                })
            });
            json!({
                "key": row.key,
                "name": row.name,
                "config": row.config,
                "set": row.set,
                "seeds": results.runs.iter().map(|run| run.seed).collect::<Vec<_>>(),
                "training_minutes": results.minutes().as_json(),
                "evaluations": evaluations.collect::<Vec<_>>(),
            })
        });
        json!({
            "command": self.command,
            "commit": self.commit,
            "date": self.date,
            "machine": self.machine,
            "seeds": self.experiment.seeds,
            "rows": rows.collect::<Vec<_>>(),
            "failures": self.failures,
        })
    }

    fn of_target(&self, text: &str) -> String {
        text.replace("TARGET", &self.experiment.stores[0].target)
    }

    /// A note where not every run has measured its first step.
    fn not_measured(&self) -> &'static str {
        let Some(results) = self.results.get(self.experiment.steps_of) else { return "" };
        let is_measured = |store: usize| {
            let first = results.steps(store).into_iter().next();
            first.is_none_or(|name| results.step(store, &name, MILLISECONDS).count() == results.runs.len())
        };
        if (0..self.experiment.stores.len()).all(is_measured) { "" } else { NOT_MEASURED }
    }

    /// Where and by what the runs were trained, which may have been another day.
    fn trained(&self) -> String {
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
    fn counts(&self, store: usize) -> String {
        let runs = self.results.iter().flat_map(|row| &row.runs);
        let Some(it) = { runs }.find_map(|run| run.evaluations[store].as_ref()) else { return String::new() };
        let target = &self.experiment.stores[store].target;
        let (slices, with, volumes) = (it.counts.slices, it.counts.liver_slices, it.per_volume.len());
        format!("{slices} slices of {volumes} volumes, {with} with {target}.\n\n")
    }

    fn table_of(&self, store: usize) -> String {
        let columns = if store == 0 { OWN.as_slice() } else { &ACROSS };
        let titles = columns.iter().map(|column| self.of_target(column.title));
        let minutes = (store == 0).then(|| "minutes".to_owned());
        let mut text = header(["row".to_owned(), "seeds".to_owned()].into_iter().chain(titles).chain(minutes));
        for (row, results) in self.experiment.rows.iter().zip(&self.results) {
            let have = results.runs.len();
            let seeds = if have as u64 == self.experiment.seeds {
                have.to_string()
            } else {
                format!("{have} of {}", self.experiment.seeds)
            };
            let figures = columns.iter().map(|c| figure(&results.figure(store, c.of), c.digits, have));
            let minutes = (store == 0).then(|| figure(&results.minutes(), 1, have));
            text += &line([cell(&row.name), seeds].into_iter().chain(figures).chain(minutes));
        }
        text
    }

    fn steps_table(&self, store: usize) -> String {
        let Some(results) = self.results.get(self.experiment.steps_of) else { return String::new() };
        let titles = STEP.iter().map(|column| self.of_target(column.title));
        let mut text = header(["step".to_owned()].into_iter().chain(titles));
        for name in results.steps(store) {
            let of = |c: &Column<StepResults>| figure(&results.step(store, &name, c.of), c.digits, results.runs.len());
            text += &line([cell(&name)].into_iter().chain(STEP.iter().map(of)));
        }
        text
    }
}

/// Mean and deviation, and the number of runs where it is not that of the row.
fn figure(of: &Statistic, digits: usize, runs: usize) -> String {
    let Some(mean) = of.mean() else { return "–".into() };
    let deviation = of.deviation().map_or_else(String::new, |deviation| format!(" ± {deviation:.digits$}"));
    let count = if of.count() == runs { String::new() } else { format!(" ({} of {runs})", of.count()) };
    format!("{mean:.digits$}{deviation}{count}")
}

fn header(titles: impl IntoIterator<Item = String>) -> String {
    let titles: Vec<String> = titles.into_iter().collect();
    let rule = ["---".to_owned()].into_iter().chain(titles.iter().skip(1).map(|_| "---:".to_owned()));
    let rule: Vec<String> = rule.collect();
    line(titles) + &line(rule)
}

fn line(cells: impl IntoIterator<Item = String>) -> String {
    cells.into_iter().fold("|".to_owned(), |text, cell| text + " " + &cell + " |") + "\n"
}

/// A bar would end the cell.
fn cell(text: &str) -> String {
    text.replace('|', r"\|").replace('\n', " ")
}
