//! Updates whose loss or gradient is not finite: they are left out and counted; several in a row end the run.

use super::step_losses::StepLosses;
use super::training_loop::{TOO_MANY, TrainingLoop};
use crate::loader::Batch;
use anyhow::{Context, Error, Result, anyhow};
use run_record::write_json;
use serde_json::json;
use tch::Tensor;

impl TrainingLoop<'_> {
    /// Counts the update that this step belongs to as left out.
    pub(super) fn leave_out(&mut self, batch: &Batch, losses: &StepLosses, what: &str) {
        self.left_out = true;
        self.state.progress.skipped_updates += 1;
        self.state.progress.skipped_in_a_row += 1;
        let step = batch.step.index + 1;
        self.ticker.line(&format!("step {step}: no update, since its {what} is not finite ({})", described(losses)));
    }

    /// The error that ends the run; the batch is saved for a look.
    pub(super) fn too_many(&self, batch: &Batch, losses: &StepLosses) -> Error {
        let saved = match self.save_batch(batch, losses) {
            Ok(path) => format!("its batch is in '{path}'"),
            Err(error) => format!("its batch could not be saved: {error:#}"),
        };
        // Each rank has a share of it, and the first that fails ends all.
        self.training.ranks.meet();
        anyhow!(
            "{TOO_MANY} updates in a row had a loss or a gradient that is not finite, the last in step {} ({}); {saved}. The \
             run's last checkpoint is unharmed. Ways out: a lower learning rate, `optimizer.clip_norm`, or other data if the \
             batch shows why",
            batch.step.index + 1,
            described(losses),
        )
    }

    /// The step's tensors, and beside them what they are.
    fn save_batch(&self, batch: &Batch, losses: &StepLosses) -> Result<String> {
        let Batch { step, slices, crops, labelled, .. } = batch;
        let directory = self.training.run.join("non-finite");
        std::fs::create_dir_all(&directory).with_context(|| format!("cannot make '{}'", directory.display()))?;
        let rank = Some(self.training.ranks.rank()).filter(|rank| *rank > 0);
        let rank = rank.map_or_else(String::new, |rank| format!("-rank-{rank}"));
        let path = directory.join(format!("step-{:06}{rank}.safetensors", step.index + 1));
        let slices = slices.iter().flat_map(|s| {
            let strong = s.strong.iter().map(|strong| ("strong", strong));
            [("slices", &s.images), ("slice_labels", &s.labels)].into_iter().chain(strong)
        });
        let crops = crops.iter().flat_map(|(images, labels)| [("crops", images), ("crop_labels", labels)]);
        let labelled = labelled.iter().flat_map(|l| [("labelled", &l.images), ("masks", &l.masks)]);
        let tensors: Vec<(&str, Tensor)> = slices
            .chain(crops)
            .chain(labelled)
            .map(|(name, t)| (name, t.to_device(tch::Device::Cpu).contiguous()))
            .collect();
        Tensor::write_safetensors(&tensors, &path)?;
        let name = |&row: &usize| self.training.store.records()[row].id().to_string();
        let names = |rows: &[usize]| rows.iter().map(name).collect::<Vec<_>>();
        let description = json!({
            "step": step.index + 1,
            "phase": self.training.config.phases[step.phase].name,
            "epoch": step.epoch + 1,
            "loss_cls": losses.classifier.map(|l| l.to_string()),
            "loss_seg": losses.segmentation.map(|l| l.to_string()),
            "slices": names(&step.slices),
            "crops_of": step.crops.iter().map(|(row, _)| name(row)).collect::<Vec<_>>(),
            "labelled": names(&step.labelled.iter().map(|v| v.row).collect::<Vec<_>>()),
        });
        write_json(&path.with_extension("json"), &description)?;
        Ok(path.display().to_string())
    }
}

fn described(losses: &StepLosses) -> String {
    let part = |name: &str, loss: Option<f64>| loss.map(|l| format!("{name} {l}"));
    let parts = [part("classifier", losses.classifier), part("segmentation", losses.segmentation)];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}
