//! TransUNet's weights of an `.npz` file with the published names.

use std::fs;
use std::io::{Cursor, Read, Write};
use std::path::{Path, PathBuf};

use baselines::{TransUnet, TransUnetSettings};
use stage_api::{Mode, SliceNetwork};
use tch::Device;
use zip::write::SimpleFileOptions;
use zip::{ZipArchive, ZipWriter};

use super::formula::{self, Fixture, TOLERANCE, slices};
use super::trans_unet::{network, small};

/// A network of the file's layout: its positions are of 4², those of the network 6².
fn settings(weights: &Path) -> TransUnetSettings {
    let layout = TransUnetSettings { image_size: 96, resnet_units: [1; 3], layers: 1, ..small() };
    TransUnetSettings { weights: Some(weights.into()), ..layout }
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/trans_unet_pretrained.npz")
}

/// The fixture's file with its entries changed: `change` gets a name and its bytes, and gives those that it shall have.
fn changed(folder: &Path, change: impl Fn(&str, Vec<u8>) -> Option<(String, Vec<u8>)>) -> PathBuf {
    let mut from = ZipArchive::new(Cursor::new(fs::read(fixture()).unwrap())).unwrap();
    let path = folder.join("weights.npz");
    let mut to = ZipWriter::new(fs::File::create(&path).unwrap());
    for index in 0..from.len() {
        let mut entry = from.by_index(index).unwrap();
        let name = entry.name().unwrap().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).unwrap();
        if let Some((name, bytes)) = change(&name, bytes) {
            to.start_file(name, SimpleFileOptions::default()).unwrap();
            to.write_all(&bytes).unwrap();
        }
    }
    to.finish().unwrap();
    path
}

fn refused(path: &Path) -> String {
    let error = TransUnet::new(&settings(path), 0, Device::Cpu).unwrap_err().to_string();
    let rest = error.strip_prefix(&format!("cannot load weights from '{}': ", path.display()));
    rest.unwrap_or_else(|| panic!("the file is not named first: {error}")).to_owned()
}

#[test]
fn weights_of_the_file_get_to_where_the_published_code_puts_them() {
    let (network, fixture) = (network(&settings(&fixture())), Fixture::read("trans_unet_pretrained"));
    let tensors = network.tensors();
    let loaded = tensors.iter().filter(|t| t.name.starts_with("transformer.")).count();
    assert_eq!(fixture.names("loaded.").len(), loaded);
    for t in tensors.iter().filter(|t| t.name.starts_with("transformer.")) {
        fixture.check(&format!("loaded.{}", t.name), &t.tensor, 60, 1e-6);
    }
    formula::fill(&network, |name| !name.starts_with("transformer."));
    fixture.check("eval", &network.forward(&slices(96), Mode::Eval), 2000, TOLERANCE);
}

#[test]
fn a_key_that_is_missing_superfluous_or_of_another_shape_is_named_with_file_and_expectation() {
    let folder = tempfile::tempdir().unwrap();
    let missing = changed(folder.path(), |name, bytes| (name != "gn_root/scale.npy").then(|| (name.into(), bytes)));
    assert!(refused(&missing).starts_with("there is no 'gn_root/scale', expected one of shape [32];"));

    let twice = changed(folder.path(), |name, bytes| Some((name.replace("LayerNorm_2", "LayerNorm_3"), bytes)));
    let error = refused(&twice);
    assert!(
        error.contains("there is no 'Transformer/encoderblock_0/LayerNorm_2/scale', expected one of shape [24]"),
        "{error}"
    );
    assert!(error.contains("'Transformer/encoderblock_0/LayerNorm_3/bias' has no place in this network"), "{error}");

    let other = TransUnetSettings { width: 12, ..settings(&fixture()) };
    let error = TransUnet::new(&other, 0, Device::Cpu).unwrap_err().to_string();
    assert!(error.contains("'embedding/kernel': it has shape [1, 1, 512, 24], expected [1, 1, 512, 12]"), "{error}");
    assert!(error.contains("or another square number of places and one"), "{error}");
    assert!(error.contains("more; the file must be R50+ViT-B_16.npz"), "{error}");
}

#[test]
fn a_damaged_file_and_one_of_another_kind_are_refused_with_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let absent = folder.path().join("absent.npz");
    assert!(refused(&absent).contains("No such file"));

    let text = folder.path().join("text.npz");
    fs::write(&text, "no weights").unwrap();
    assert!(refused(&text).starts_with("it is no .npz file: "));

    let whole = fs::read(fixture()).unwrap();
    fs::write(&text, &whole[..whole.len() / 2]).unwrap();
    assert!(refused(&text).starts_with("it is no .npz file: "));

    let root = |change: fn(Vec<u8>) -> Vec<u8>| {
        let path = changed(folder.path(), |name, bytes| {
            Some((name.into(), if name == "conv_root/kernel.npy" { change(bytes) } else { bytes }))
        });
        refused(&path)
    };
    let size = 4 * 7 * 7 * 3 * 32;
    assert!(root(|bytes| bytes[..200].to_vec()).starts_with(&format!(
        "'conv_root/kernel': its values are not as many bytes as the {size} of shape [7, 7, 3, 32];"
    )));
    assert!(root(|bytes| [bytes, vec![0]].concat()).contains("its values are not as many bytes"));
    assert!(root(|bytes| bytes[..5].to_vec()).starts_with("'conv_root/kernel': it is cut off"));
    let doubles = |bytes: Vec<u8>| {
        let at = bytes.windows(3).position(|part| part == b"<f4").unwrap();
        [&bytes[..at], b"<f8", &bytes[at + 3..]].concat()
    };
    assert!(root(doubles).starts_with("'conv_root/kernel': it holds '<f8', expected 32-bit floats, '<f4'"));
}

#[test]
fn one_flipped_byte_of_the_values_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let mut bytes = fs::read(fixture()).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    let path = folder.path().join("weights.npz");
    fs::write(&path, bytes).unwrap();
    let error = refused(&path);
    assert!(error.starts_with("'block"), "{error}");
}
