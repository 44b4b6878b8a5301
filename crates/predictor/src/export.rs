//! A run's result, or pretrained weights, in formats that other programs read.

use crate::config::{ModelConfig, Normalization, SegmenterConfig};
use crate::model::Model;
use crate::registry::{ModelRegistry, sam};
use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use run_record::checkpoint::Which;
use run_record::{RunRecord, Status};
use sam_segmenter::{
    DensePrompt, Family, Notes, SamSegmenter, SegmenterSettings, TORCHSCRIPT_DECODER, TORCHSCRIPT_ENCODER,
};
use stage_api::Segmenter;
use std::path::{Path, PathBuf};
use tch::Device;
use whole_file::Existing;

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Plain SAM weights under the official names, the adapters added into them
    Safetensors,
    /// Encoder and decoder as modules that PyTorch and libtorch run by themselves
    Torchscript,
    /// The encoder's adapters alone
    Adapters,
}

impl Format {
    /// Where it goes if nothing else is said: from the run's directory.
    fn default_output(self) -> &'static str {
        match self {
            Self::Safetensors => "export/weights.safetensors",
            Self::Torchscript => "export/torchscript",
            Self::Adapters => "export/adapters.safetensors",
        }
    }

    /// TorchScript is two files, the others are one.
    fn is_folder(self) -> bool {
        self == Self::Torchscript
    }

    /// What is written.
    fn files(self, output: &Path) -> Vec<PathBuf> {
        if self.is_folder() {
            [TORCHSCRIPT_ENCODER, TORCHSCRIPT_DECODER].map(|name| output.join(name)).into()
        } else {
            vec![output.to_owned()]
        }
    }
}

/// A segmenter on its way out, and what its files shall say of its origin.
pub struct Export {
    segmenter: SamSegmenter,
    notes: Notes,
}

impl Export {
    /// What a run's checkpoint holds.
    ///
    /// # Errors
    /// If it has none, or the pretrained weights are not those that it began with.
    pub fn of_run(
        run: &Path,
        which: Which,
        (config, record): (&ModelConfig, &RunRecord),
        registry: &ModelRegistry,
    ) -> Result<Self> {
        is_sam(&config.segmenter).with_context(|| format!("'{}'", run.display()))?;
        if record.status != Status::Finished {
            let which = if which == Which::Last { "last" } else { "best" };
            eprintln!("note: '{}' is not finished: what is exported is its {which} checkpoint so far", run.display());
        }
        let model = Model::from_run(run, which, config, registry, Device::Cpu)?;
        let segmenter = sam_of(&model, &config.segmenter)?;
        let window = config.intensity.window;
        let notes = [
            ("run", record.name.clone()),
            ("target", record.store.target.clone()),
            ("slice_size", record.store.settings.slice_size.to_string()),
            ("window_level", window.level.to_string()),
            ("window_width", window.width.to_string()),
            ("intensity", intensity(config.intensity.normalization).to_owned()),
        ];
        Ok(Self { segmenter, notes: with_version(notes) })
    }

    /// A file of weights as it is, or with adapters that were exported beside it.
    ///
    /// # Errors
    /// If either can't be read, or they don't belong together.
    pub fn of_weights(
        weights: &Path,
        adapters: Option<&Path>,
        family: Option<Family>,
        input_size: Option<i64>,
    ) -> Result<Self> {
        let plain = SegmenterSettings {
            family,
            input_size,
            lora_rank: 0,
            dense_prompt: DensePrompt::None,
            ..SegmenterSettings::default()
        };
        let settings = match adapters {
            Some(path) => plain.for_adapters(path)?,
            None => plain,
        };
        let mut segmenter = SamSegmenter::load(weights, &settings, Device::Cpu)?;
        if let Some(path) = adapters {
            segmenter.load_adapters(path)?;
        }
        Ok(Self { segmenter, notes: with_version([]) })
    }

    /// Writes it, and says what was written. Files that are there are replaced, whole or not at all.
    ///
    /// # Errors
    /// If a place can't be written, or a traced module computes something else than the model.
    pub fn write(&self, format: Format, output: &Path) -> Result<()> {
        let folder = if format.is_folder() { Some(output) } else { output.parent() };
        if let Some(folder) = folder {
            std::fs::create_dir_all(folder)
                .with_context(|| format!("cannot make the folder '{}'", folder.display()))?;
        }
        match format {
            Format::Safetensors => {
                self.segmenter.save_merged(output, &self.notes)?;
                if self.segmenter.has_trained_cam_vector() {
                    eprintln!(
                        "note: the learned vector of the CAM's mask (`dense_prompt = \"embedding\"`) has no place in a SAM \
                         checkpoint and is left out: boxes prompt as before, the CAM's mask no longer does. --to torchscript \
                         keeps it"
                    );
                }
            }
            Format::Adapters => {
                self.segmenter.save_adapters(output, &self.notes)?;
                eprintln!(
                    "note: these are the encoder's adapters alone; what prompt encoder and decoder have learnt is in --to \
                     safetensors"
                );
            }
            Format::Torchscript => self.segmenter.save_torchscript(output, &self.notes)?,
        }
        let architecture = self.segmenter.architecture();
        eprintln!(
            "{} of the family '{}', input {}²",
            architecture.encoder.name(),
            architecture.family.name(),
            architecture.input_size
        );
        for file in format.files(output) {
            let bytes = file.metadata().with_context(|| format!("cannot read '{}'", file.display()))?.len();
            println!("'{}' ({:.1} MB)", file.display(), bytes as f64 / 1e6);
        }
        Ok(())
    }
}

/// A model's segmenter as the SAM that it is.
///
/// # Errors
/// If it is none.
pub fn sam_of(model: &Model, config: &SegmenterConfig) -> Result<SamSegmenter> {
    is_sam(config)?;
    let segmenter = sam(config, 0, Device::Cpu)?;
    for (from, mut to) in model.segmenter.tensors().into_iter().zip(segmenter.tensors()) {
        tch::no_grad(|| to.tensor.copy_(&from.tensor));
    }
    Ok(segmenter)
}

fn is_sam(config: &SegmenterConfig) -> Result<()> {
    ensure!(
        config.kind == "sam",
        "its segmenter is a \"{}\", and only a SAM can be exported; the tensors of another, by the names that it gives \
         them, are in `weights.safetensors` of the run's checkpoints",
        config.kind
    );
    Ok(())
}

/// Where an export goes: as asked, or into the run's directory, where an earlier one is replaced.
///
/// # Errors
/// If something of the other kind, the source itself, or a file that is to be kept is in that place.
pub fn output(
    format: Format,
    asked: Option<&Path>,
    run: Option<&Path>,
    source: &[&Path],
    existing: Existing,
) -> Result<PathBuf> {
    let existing = if asked.is_some() { existing } else { Existing::Replaced };
    let output = match (asked, run) {
        (Some(path), _) => path.to_owned(),
        (None, Some(run)) => run.join(format.default_output()),
        (None, None) => anyhow::bail!("--output is missing"),
    };
    if format.is_folder() {
        ensure!(
            !output.is_file(),
            "--output '{}' is a file, but TorchScript is two files: name a folder",
            output.display()
        );
    } else {
        ensure!(!output.is_dir(), "--output '{}' is a folder: name a file", output.display());
    }
    for file in format.files(&output) {
        whole_file::check_place(&file, source, existing)?;
    }
    Ok(output)
}

/// What a run needs later is not replaced by what is exported from it.
///
/// # Errors
/// If the output is in the run's checkpoints, or the pretrained weights that it began with.
pub fn keeps_its_sources(output: &Path, run: &Path, weights: &Path) -> Result<()> {
    let whole = |path: &Path| path.canonicalize().ok();
    let taken = [whole(weights), whole(&run.join("checkpoints"))];
    let inside = output.ancestors().filter_map(whole).any(|place| taken.contains(&Some(place)));
    ensure!(!inside, "--output '{}' is what the run needs itself: name another place", output.display());
    Ok(())
}

fn with_version<const N: usize>(notes: [(&str, String); N]) -> Notes {
    let version = ("written_by", format!("sam-mix {}", env!("CARGO_PKG_VERSION")));
    notes.into_iter().chain([version]).map(|(key, value)| (key.to_owned(), value)).collect()
}

/// As in configurations.
fn intensity(normalization: Normalization) -> &'static str {
    match normalization {
        Normalization::Window => "window",
        Normalization::Authors => "authors",
    }
}
