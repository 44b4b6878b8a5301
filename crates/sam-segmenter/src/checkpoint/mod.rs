//! State dictionaries on disk: PyTorch's zip of pickles (read only) and safetensors (read and write).
//!
//! Opening a file tells names and shapes; tensors are then read one by one, so that no more than one is in memory twice.
//! Invariant: reading a file never runs anything that the file asks for, and never makes a tensor larger than the part of
//! the file that it lies in.

mod pickle;
mod record;
mod safetensors;
mod shapes;
mod torch_zip;
mod weights;

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use tch::Tensor;

pub(crate) use self::record::{AdapterRecord, Record};
use self::safetensors::SafetensorsFile;
pub(crate) use self::safetensors::write as write_safetensors;
pub(crate) use self::shapes::{PARTS, Shapes};
use self::torch_zip::TorchZip;
pub(crate) use self::weights::Weights;
use crate::error::WeightsError;

/// An open file of weights.
pub(crate) struct StateFile {
    path: PathBuf,
    /// Of all tensors, by their names in the model.
    shapes: Shapes,
    place: Place,
    source: Source,
    /// SHA-256 of the file, in lower-case hexadecimal.
    sha256: String,
    record: Record,
}

/// Where in a file the tensors are, and by which names.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Place {
    /// The keys of the dictionary that holds them, from the file's own on.
    containers: Vec<String>,
    /// What all names there begin with, and those of the model don't.
    prefix: String,
}

impl std::fmt::Display for Place {
    /// Nothing where the tensors stand alone under the model's names.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.containers.is_empty() {
            write!(f, " under '{}'", self.containers.join("']['"))?;
        }
        if !self.prefix.is_empty() {
            write!(f, " without '{}', with which all names begin", self.prefix)?;
        }
        Ok(())
    }
}

enum Source {
    Torch(TorchZip),
    Safetensors(SafetensorsFile),
    /// Not a file: a model's own tensors, for a twin of it.
    Memory(BTreeMap<String, Tensor>),
}

impl StateFile {
    /// Opens a file of weights; its content, not its name, decides the format.
    ///
    /// The state dictionary may stand alone or under the names that [`torch_zip::CONTAINERS`] lists; what all of its keys
    /// begin with is taken off, as wrappers (data parallel, compiled, Lightning's) put it there.
    pub(crate) fn open(path: &Path) -> Result<Self, WeightsError> {
        let mut file = File::open(path).map_err(WeightsError::io(path))?;
        let (sha256, length) = checksum(&mut file).map_err(WeightsError::io(path))?;
        let mut start = Vec::new();
        file.rewind().and_then(|()| (&file).take(9).read_to_end(&mut start)).map_err(WeightsError::io(path))?;
        let malformed = |what| WeightsError::malformed(path, what);
        let mut containers = Vec::new();
        let (source, shapes, record) = if start.starts_with(b"PK\x03\x04") {
            let archive = TorchZip::open(file, length).map_err(malformed)?;
            let shapes = archive.shapes();
            containers.extend(archive.containers().iter().map(|&key| key.to_owned()));
            (Source::Torch(archive), shapes, Record::default())
        } else if safetensors::looks_like(&start) {
            let (file, record) = SafetensorsFile::open(file, length).map_err(malformed)?;
            let shapes = file.shapes();
            (Source::Safetensors(file), shapes, record)
        } else {
            const WHOLE: &str = "is it the file that was meant, and was it fetched whole?";
            let (found, way_out) = match start.first() {
                None => ("the file is empty", WHOLE),
                Some(0x80) => (
                    "it begins like a bare pickle (PyTorch before 1.6)",
                    "convert it once with Python: torch.save(torch.load('old.pth', map_location='cpu'), 'new.pth')",
                ),
                Some(_) => ("its first bytes belong to no known format", WHOLE),
            };
            return Err(WeightsError::UnknownFormat { path: path.to_owned(), found, way_out });
        };
        let (shapes, prefix) = shapes.without_shared_prefix();
        Ok(Self { path: path.to_owned(), shapes, place: Place { containers, prefix }, source, sha256, record })
    }

    /// The tensors of a model as if they had been read from its file.
    pub(crate) fn of_model(path: &Path, tensors: Vec<(String, Tensor)>, sha256: &str, record: Record) -> Self {
        let tensors: BTreeMap<String, Tensor> = tensors.into_iter().collect();
        let shapes = tensors.iter().map(|(name, tensor)| (name.clone(), tensor.size())).collect();
        let source = Source::Memory(tensors);
        Self { path: path.to_owned(), shapes, place: Place::default(), source, sha256: sha256.to_owned(), record }
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn shapes(&self) -> &Shapes {
        &self.shapes
    }

    pub(crate) fn place(&self) -> &Place {
        &self.place
    }

    pub(crate) fn sha256(&self) -> &str {
        &self.sha256
    }

    pub(crate) fn record(&self) -> &Record {
        &self.record
    }

    /// A tensor by its name in the model, as the file has it, on the CPU.
    pub(crate) fn tensor(&mut self, name: &str) -> Result<Tensor, WeightsError> {
        let stored = format!("{}{name}", self.place.prefix);
        let tensor = match &mut self.source {
            Source::Torch(archive) => archive.tensor(&stored),
            Source::Safetensors(file) => file.tensor(&stored),
            Source::Memory(tensors) => tensors.remove(&stored).ok_or_else(|| "it was taken already".to_owned()),
        };
        tensor.map_err(|what| WeightsError::malformed(&self.path, format!("'{stored}': {what}")))
    }
}

/// SHA-256 and length, a block at a time.
fn checksum(file: &mut File) -> std::io::Result<(String, u64)> {
    let (mut hash, mut length) = (Sha256::new(), 0);
    let mut block = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut block)?;
        if count == 0 {
            return Ok((hexadecimal(&hash.finalize()), length));
        }
        hash.update(&block[..count]);
        length += count as u64;
    }
}

fn hexadecimal(digest: &[u8]) -> String {
    use std::fmt::Write;
    digest.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests;
