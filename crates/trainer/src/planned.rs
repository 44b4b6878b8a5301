//! nnU-Net configures itself: what `segmenter.settings.plan = true` stands for, from the slices that a run is trained on.

use crate::config::Config;
use anyhow::{Context, Result, ensure};
use baselines::NnUNetSettings;
use baselines::nnunet::{Case, Fingerprint, Plan};
use slice_sampling::{Selection, rows_of};
use slice_store::Slices;

/// The kind of segmenter that has a planner.
const KIND: &str = "nnunet";
const PLAN: &str = "plan";

/// nnU-Net's distance of slices that are cases by themselves, in mm.
const ALONE_MM: f64 = 999.0;

/// The settings that a plan decides, beside the batch of every phase.
const DECIDED: [&str; 4] = ["features", "strides", "kernels", "patch"];

/// Whether the configuration asks for a plan; a setting of that name of another segmenter is its own.
///
/// # Errors
/// It is no yes or no; settings that the plan would decide stand beside it.
pub fn asks(config: &Config) -> Result<bool> {
    let asked = config.segmenter.settings.get(PLAN).filter(|_| config.segmenter.kind == KIND);
    let Some(asked) = asked else { return Ok(false) };
    let asked =
        asked.as_bool().with_context(|| format!("segmenter.settings.{PLAN} is {asked}, expected true or false"))?;
    let beside = DECIDED.into_iter().find(|key| asked && config.segmenter.settings.contains_key(*key));
    ensure!(
        beside.is_none(),
        "segmenter.settings.{PLAN} is true, and `{}` stands beside it, which the plan decides: leave one of them out",
        beside.unwrap_or_default()
    );
    Ok(asked)
}

/// Puts nnU-Net's plan for the labelled slices, each of which is a case, in the place of `plan = true`: patch, stages, channels, and the
/// batch of every phase. Nothing where none is asked for.
///
/// # Errors
/// As [`asks`]; the planner refuses the slices.
pub fn plan(config: &mut Config, store: &Slices, selection: &Selection) -> Result<()> {
    let asked = asks(config)?;
    forget(config);
    if !asked {
        return Ok(());
    }
    let side = store.slice_size();
    let of_row = |row: usize| {
        let record = &store.records()[row];
        let in_plane = [record.row_spacing_mm, record.column_spacing_mm].map(f64::from);
        let [rows, columns] = if record.spacing_valid { in_plane } else { [1.0, 1.0] };
        Case { shape: [1, side, side], spacing: [ALONE_MM, rows, columns] }
    };
    let cases = rows_of(store, &selection.labelled)?.into_iter().map(of_row).collect();
    let plan = Plan::new(&Fingerprint { cases })?;
    // What the network computes is on slices as they are stored, which nothing resamples.
    let settings = NnUNetSettings::from(&plan);
    let mut table = toml::Table::try_from(&settings).context("a plan is TOML")?;
    config.segmenter.settings.extend(DECIDED.into_iter().filter_map(|key| Some((key.to_owned(), table.remove(key)?))));
    for phase in &mut config.phases {
        phase.batch_labelled = plan.batch as usize;
    }
    eprintln!(
        "nnU-Net's plan: patches of {} x {}, {} stages of {:?} channels, {} slices in a batch",
        plan.patch[0],
        plan.patch[1],
        plan.features.len(),
        plan.features,
        plan.batch
    );
    Ok(())
}

/// What a begun run's plan decided, and no more, in a configuration that asks for one again.
pub fn keep(own: &Config, asked: &mut Config) -> Result<()> {
    let again = asks(asked)?;
    forget(asked);
    if again {
        let decided =
            DECIDED.into_iter().filter_map(|key| Some((key.to_owned(), own.segmenter.settings.get(key)?.clone())));
        asked.segmenter.settings.extend(decided);
        for (to, from) in asked.phases.iter_mut().zip(&own.phases) {
            to.batch_labelled = from.batch_labelled;
        }
    }
    Ok(())
}

/// No run's configuration has the wish beside what came of it.
fn forget(config: &mut Config) {
    if config.segmenter.kind == KIND {
        config.segmenter.settings.remove(PLAN);
    }
}
