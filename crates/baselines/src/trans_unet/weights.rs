//! Weights that were pretrained on ImageNet, by the names of the published `R50+ViT-B_16.npz` (Flax's).
//!
//! ResNet and transformer take theirs from the file; the decoder has none there and stays as it is.

use std::path::Path;

use anyhow::{Result, anyhow, bail};
use stage_api::NamedTensor;
use tch::Tensor;

use super::npz::Npz;

/// What the file holds for the classification of ImageNet, and no segmentation needs.
const PASSED_OVER: [&str; 3] = ["cls", "head/", "pre_logits/"];
/// How many problems one error lists.
const LISTED: usize = 5;

/// Writes the file's values into the tensors that it has any for; `heads` is how many the transformer has.
///
/// # Errors
/// A file that can't be read; keys that are missing, superfluous, of another shape or type.
pub(super) fn load(path: &Path, heads: i64, tensors: &[NamedTensor]) -> Result<()> {
    let fail = |problem: &str| anyhow!("cannot load weights from '{}': {problem}", path.display());
    let opened = Npz::open(path).and_then(|file| Ok((file.keys()?, file)));
    let (mut unused, mut file) = opened.map_err(|error| fail(&format!("{error:#}")))?;
    unused.retain(|key| !PASSED_OVER.iter().any(|start| key.starts_with(start)));
    let mut problems = Vec::new();
    for NamedTensor { name, tensor, .. } in tensors {
        let Some(place) = Place::of(name, &tensor.size(), heads) else { continue };
        let Some(index) = unused.iter().position(|key| *key == place.key) else {
            problems.push(format!("there is no '{}', expected one of shape {:?}", place.key, place.shape));
            continue;
        };
        unused.swap_remove(index);
        let value = file.read(&place.key).and_then(|found| place.fitted(&found, &tensor.size()));
        match value {
            Ok(value) => tch::no_grad(|| tensor.shallow_clone().copy_(&value)),
            Err(error) => problems.push(format!("'{}': {error:#}", place.key)),
        }
    }
    unused.sort();
    problems.extend(unused.iter().map(|key| format!("'{key}' has no place in this network")));
    if problems.is_empty() {
        return Ok(());
    }
    let more = problems.len().saturating_sub(LISTED);
    problems.truncate(LISTED);
    let more = if more == 0 { String::new() } else { format!("; and {more} more") };
    Err(fail(&format!(
        "{}{more}; the file must be R50+ViT-B_16.npz, or one of the layout of [segmenter.settings]",
        problems.join("; ")
    )))
}

/// Where a tensor's values are in the file.
#[derive(Debug, PartialEq)]
struct Place {
    key: String,
    shape: Vec<i64>,
}

impl Place {
    /// That of the tensor of this name and shape; `None` for one of the decoder.
    fn of(name: &str, shape: &[i64], heads: i64) -> Option<Self> {
        let name = name.strip_prefix("transformer.")?;
        let (owner, part) = name.rsplit_once('.')?;
        let place = |key: String, shape: &[i64]| Some(Self { key, shape: shape.to_vec() });
        let part = match (part, shape.len()) {
            (_, 3) => return place("Transformer/posembed_input/pos_embedding".into(), shape),
            ("bias", _) => "bias",
            // Only normalisations have weights of one axis.
            (_, 1) => "scale",
            _ => "kernel",
        };
        if let Some(owner) = owner.strip_prefix("encoder.layer.") {
            let (number, owner) = owner.split_once('.')?;
            let owner = match owner {
                "attention_norm" => "LayerNorm_0".to_owned(),
                "ffn_norm" => "LayerNorm_2".to_owned(),
                "ffn.fc1" => "MlpBlock_3/Dense_0".to_owned(),
                "ffn.fc2" => "MlpBlock_3/Dense_1".to_owned(),
                owner => format!("MultiHeadDotProductAttention_1/{}", owner.strip_prefix("attn.")?),
            };
            let shape: Vec<i64> = match (owner.rsplit_once('/'), shape) {
                (Some((_, "query" | "key" | "value")), &[width]) => vec![heads, width / heads],
                (Some((_, "query" | "key" | "value")), &[width, _]) => vec![width, heads, width / heads],
                (Some((_, "out")), &[width, _]) => vec![heads, width / heads, width],
                _ => shape.iter().rev().copied().collect(),
            };
            return place(format!("Transformer/encoderblock_{number}/{owner}/{part}"), &shape);
        }
        let shape = match *shape {
            [output, input, rows, columns] => vec![rows, columns, input, output],
            _ => shape.to_vec(),
        };
        let owner = match owner {
            "encoder.encoder_norm" => "Transformer/encoder_norm".to_owned(),
            "embeddings.patch_embeddings" => "embedding".to_owned(),
            "embeddings.hybrid_model.root.conv" => "conv_root".to_owned(),
            "embeddings.hybrid_model.root.gn" => "gn_root".to_owned(),
            owner => {
                let unit = owner.strip_prefix("embeddings.hybrid_model.body.")?.replace('.', "/");
                unit.replace("downsample", "conv_proj")
            }
        };
        place(format!("{owner}/{part}"), &shape)
    }

    /// The file's array as the tensor of shape `wanted` has it.
    fn fitted(&self, found: &Tensor, wanted: &[i64]) -> Result<Tensor> {
        if let &[1, places, width] = wanted {
            return positions(found, places, width);
        }
        let size = found.size();
        // The file has axes of length 1 before the channels of a group normalisation.
        if significant(&size) != significant(&self.shape) {
            bail!("it has shape {size:?}, expected {:?}", self.shape);
        }
        Ok(match *wanted {
            [output, input, rows, columns] => found.reshape([rows, columns, input, output]).permute([3, 2, 0, 1]),
            [output, input] => found.reshape([input, output]).tr(),
            _ => found.reshape(wanted),
        })
    }
}

/// The shape from its first axis that is longer than 1.
fn significant(shape: &[i64]) -> &[i64] {
    let first = shape.iter().position(|&side| side != 1).unwrap_or(shape.len());
    &shape[first..]
}

/// Position embeddings of the file, `[1, 1 + k², C]` with one of the class token first, or without it as many as there are
/// `places`, resized bilinearly with aligned corners to `[1, places, C]`.
fn positions(found: &Tensor, places: i64, width: i64) -> Result<Tensor> {
    let size = found.size();
    let side = |places: i64| (places as f64).sqrt().round() as i64;
    let resized = match *size {
        [1, count, channels] if channels == width && count == places => return Ok(found.shallow_clone()),
        [1, count, channels] if channels == width && count > 1 && side(count - 1).pow(2) == count - 1 => {
            let (from, to) = (side(count - 1), side(places));
            let grid = found.slice(1, 1, None, 1).transpose(1, 2).reshape([1, width, from, from]);
            grid.upsample_bilinear2d([to, to], true, None, None)
        }
        _ => bail!(
            "it has shape {size:?}, expected [1, {}, {width}], or another square number of places and one",
            places + 1
        ),
    };
    Ok(resized.flatten(2, -1).transpose(1, 2))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trans_unet::{TransUnet, TransUnetSettings};
    use stage_api::SliceNetwork;

    fn place(name: &str, shape: &[i64]) -> Option<(String, Vec<i64>)> {
        Place::of(name, shape, 12).map(|place| (place.key, place.shape))
    }

    #[test]
    fn tensors_have_their_places_under_the_published_names_and_shapes() {
        let cases: [(&str, &[i64], &str, &[i64]); 11] = [
            ("embeddings.hybrid_model.root.conv.weight", &[64, 3, 7, 7], "conv_root/kernel", &[7, 7, 3, 64]),
            ("embeddings.hybrid_model.root.gn.weight", &[64], "gn_root/scale", &[64]),
            (
                "embeddings.hybrid_model.body.block2.unit1.downsample.weight",
                &[512, 256, 1, 1],
                "block2/unit1/conv_proj/kernel",
                &[1, 1, 256, 512],
            ),
            ("embeddings.hybrid_model.body.block2.unit1.gn_proj.bias", &[512], "block2/unit1/gn_proj/bias", &[512]),
            ("embeddings.patch_embeddings.weight", &[768, 1024, 1, 1], "embedding/kernel", &[1, 1, 1024, 768]),
            (
                "embeddings.position_embeddings",
                &[1, 256, 768],
                "Transformer/posembed_input/pos_embedding",
                &[1, 256, 768],
            ),
            (
                "encoder.layer.3.attn.query.weight",
                &[768, 768],
                "Transformer/encoderblock_3/MultiHeadDotProductAttention_1/query/kernel",
                &[768, 12, 64],
            ),
            (
                "encoder.layer.3.attn.value.bias",
                &[768],
                "Transformer/encoderblock_3/MultiHeadDotProductAttention_1/value/bias",
                &[12, 64],
            ),
            (
                "encoder.layer.11.attn.out.weight",
                &[768, 768],
                "Transformer/encoderblock_11/MultiHeadDotProductAttention_1/out/kernel",
                &[12, 64, 768],
            ),
            (
                "encoder.layer.0.ffn.fc1.weight",
                &[3072, 768],
                "Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel",
                &[768, 3072],
            ),
            ("encoder.encoder_norm.bias", &[768], "Transformer/encoder_norm/bias", &[768]),
        ];
        for (name, shape, key, expected) in cases {
            assert_eq!(
                place(&format!("transformer.{name}"), shape),
                Some((key.to_owned(), expected.to_vec())),
                "{name}"
            );
        }
        assert_eq!(place("decoder.conv_more.0.weight", &[512, 768, 3, 3]), None);
    }

    #[test]
    fn every_tensor_but_the_decoders_has_a_place_of_its_own() {
        let settings = TransUnetSettings { layers: 2, width: 24, mlp: 8, ..TransUnetSettings::default() };
        let tensors = TransUnet::new(&settings, 0, tch::Device::Cpu).unwrap().tensors();
        let of_encoder = tensors.iter().filter(|t| t.name.starts_with("transformer."));
        let keys: Vec<String> =
            of_encoder.map(|t| Place::of(&t.name, &t.tensor.size(), 12).expect(&t.name).key).collect();
        let different: std::collections::BTreeSet<&String> = keys.iter().collect();
        assert_eq!(different.len(), keys.len());
    }
}
