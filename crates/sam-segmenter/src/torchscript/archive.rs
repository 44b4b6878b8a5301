//! The last hand on what libtorch writes of a traced module: an archive whose code is text.
//!
//! Tracing gives a method of unnamed tensors with one result, on the device that it was traced on. Here a `forward` with
//! names and as many results as it takes is put beside it, the device becomes that of the argument, and a description is
//! added.

use std::fs::File;
use std::io::{BufReader, BufWriter, Read, Write};
use std::path::Path;

use tch::CModule;
use whole_file::Unfinished;
use zip::write::SimpleFileOptions;
use zip::{CompressionMethod, ZipArchive, ZipWriter};

use crate::error::WeightsError;
use crate::segmenter::Notes;

/// The extra file of a module that describes it.
const DESCRIPTION: &str = "extra/model.json";
/// Ends the names of the code and of the table of its places, which would no longer be true.
const CODE: &str = "code/__torch__.py";
const CODE_PLACES: &str = ".debug_pkl";

/// `forward` in TorchScript's own spelling.
pub(super) struct Method {
    pub(super) class: &'static str,
    /// As in a signature, after `self`.
    pub(super) arguments: &'static str,
    pub(super) result: &'static str,
    /// Statements, with the indentation that they have among each other.
    pub(super) body: String,
}

impl Method {
    /// As a part of its class.
    fn text(&self) -> String {
        let Self { class, arguments, result, body } = self;
        let body: String = body.lines().flat_map(|line| ["    ", line, "\n"]).collect();
        format!("  def forward(self: __torch__.{class}, {arguments}) -> {result}:\n{body}")
    }
}

/// Writes the module with that method and description into a file that has yet to be checked.
pub(super) fn write(
    module: &CModule,
    path: &Path,
    method: &Method,
    description: &Notes,
) -> Result<Unfinished, WeightsError> {
    let beside = || Unfinished::beside(path).map_err(WeightsError::io(path));
    let (traced, whole) = (beside()?, beside()?);
    module.save(traced.path()).map_err(WeightsError::torch(path))?;
    rewrite(traced.path(), whole.path(), path, method, description).map_err(WeightsError::io(path))?;
    Ok(whole)
}

fn rewrite(from: &Path, to: &Path, path: &Path, method: &Method, description: &Notes) -> std::io::Result<()> {
    // The folder in the archive, which libtorch names after the file.
    let folder = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
    let renamed = |name: &str| format!("{folder}/{}", name.split_once('/').map_or(name, |(_, rest)| rest));
    let mut source = ZipArchive::new(BufReader::new(File::open(from)?))?;
    let mut target = ZipWriter::new(BufWriter::new(File::create(to)?));
    let text = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for number in 0..source.len() {
        let mut entry = source.by_index(number)?;
        let name = renamed(&entry.name()?);
        if name.ends_with(CODE) {
            let mut code = String::new();
            entry.read_to_string(&mut code)?;
            target.start_file(name, text)?;
            target.write_all(on_any_device(&code).as_bytes())?;
            target.write_all(method.text().as_bytes())?;
        } else if !name.ends_with(CODE_PLACES) {
            target.raw_copy_file_rename(entry, name)?;
        }
    }
    target.start_file(format!("{folder}/{DESCRIPTION}"), text)?;
    target.write_all(&serde_json::to_vec_pretty(description)?)?;
    target.finish()?.into_inner().map_err(std::io::IntoInnerError::into_error)?.sync_all()
}

/// What was traced on the CPU runs where its first argument lies.
fn on_any_device(code: &str) -> String {
    code.replace("torch.device(\"cpu\")", "ops.prim.device(argument_1)")
}
