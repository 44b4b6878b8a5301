//! Which SAM it is: one description for each, from which everything is built.
//!
//! Sizes are read off the tensors. The family can't be: SAM's and MedSAM's ViT-B have the same keys and shapes, and want
//! different inputs. So it is stated, or known by the file's SHA-256.

use crate::checkpoint::Shapes;
use crate::family::Family;

/// Channels of the embedding, in every SAM.
pub(crate) const EMBEDDING: i64 = 256;

/// No known encoder has a larger size of any kind: ViT-H's widest map has 5120 outputs.
const LARGEST_SIZE: i64 = 1 << 14;
/// TinyViT's windows have a bias for each pair of their tokens: the fourth power.
const LARGEST_WINDOW: i64 = 64;

/// One SAM.
#[derive(Clone, Debug, PartialEq)]
pub struct SamArchitecture {
    /// What it was trained as.
    pub family: Family,
    /// The image encoder.
    pub encoder: EncoderArchitecture,
    /// Side of the encoder's square input, in pixels.
    pub input_size: i64,
}

/// The image encoders.
#[derive(Clone, Debug, PartialEq)]
pub enum EncoderArchitecture {
    /// A plain vision transformer.
    Vit(VitArchitecture),
    /// Convolutions, then three stages of attention in windows.
    TinyVit(TinyVitArchitecture),
}

/// SAM's vision transformer: windowed attention, but for some global blocks; relative positions decomposed by axis.
#[derive(Clone, Debug, PartialEq)]
pub struct VitArchitecture {
    /// Channels.
    pub width: i64,
    /// Blocks.
    pub depth: usize,
    /// Heads of attention.
    pub heads: i64,
    /// Hidden channels of the perceptrons.
    pub mlp: i64,
    /// Side of a patch in pixels.
    pub patch: i64,
    /// Side of the windows in tokens.
    pub window: i64,
    /// The blocks whose attention sees the whole slice.
    pub global_blocks: Vec<usize>,
    /// Side of the token grid that the file's positions are for; others are made by resizing them.
    pub grid: i64,
}

/// TinyViT as MobileSAM and LiteMedSAM have it.
#[derive(Clone, Debug, PartialEq)]
pub struct TinyVitArchitecture {
    /// Kernel of the two patch embedding convolutions: 3 with stride 2 (MobileSAM), or 1 with stride 1 (LiteMedSAM).
    pub patch_kernel: i64,
    /// Channels of the convolutions' stage and of the three of attention.
    pub widths: [i64; 4],
    /// Blocks of each.
    pub depths: [usize; 4],
    /// Heads of the three stages of attention.
    pub heads: [i64; 3],
    /// Sides of their windows, in tokens.
    pub windows: [i64; 3],
    /// Classes of ImageNet's head, where the file carries it: it is kept, and not used.
    pub classification_head: Option<i64>,
}

impl VitArchitecture {
    fn published(width: i64, depth: usize, heads: i64, global_blocks: [usize; 4]) -> Self {
        let global_blocks = global_blocks.to_vec();
        Self { width, depth, heads, mlp: 4 * width, patch: 16, window: 14, global_blocks, grid: 64 }
    }

    /// ViT-B.
    pub fn base() -> Self {
        Self::published(768, 12, 12, [2, 5, 8, 11])
    }

    /// ViT-L.
    pub fn large() -> Self {
        Self::published(1024, 24, 16, [5, 11, 17, 23])
    }

    /// ViT-H.
    pub fn huge() -> Self {
        Self::published(1280, 32, 16, [7, 15, 23, 31])
    }

    fn recognise(shapes: &Shapes) -> Option<Self> {
        let [1, grid, columns, width] = shape_of(shapes, "pos_embed")? else { return None };
        let [_, _, patch, _] = shape_of(shapes, "patch_embed.proj.weight")?;
        let depth = shapes.count("image_encoder.blocks.");
        let [mlp, _] = shape_of(shapes, "blocks.0.mlp.lin1.weight")?;
        let [_, head] = shape_of(shapes, "blocks.0.attn.rel_pos_h")?;
        // Smaller patches would let a stated input size make a grid that fills the memory.
        let fits = grid == columns && width % head == 0 && patch >= 8;
        // The tables of windows have 2 · window − 1 rows, those of global blocks 2 · grid − 1. Block 0 is windowed in all.
        let rows = |i: usize| shape_of(shapes, &format!("blocks.{i}.attn.rel_pos_h")).map(|[rows, _]| rows);
        let window = (rows(0)? + 1) / 2;
        let global_blocks = (0..depth).filter(|&i| rows(i).is_some_and(|n| n != 2 * window - 1)).collect();
        fits.then(|| Self { width, depth, heads: width / head, mlp, patch, window, global_blocks, grid })
    }
}

/// Of a tensor of the image encoder. `None` as well where a size is beyond any that is known, lest a file of a few bytes,
/// whose tensors have no elements, asks for a model that fills the memory.
fn shape_of<const N: usize>(shapes: &Shapes, name: &str) -> Option<[i64; N]> {
    let shape: [i64; N] = shapes.get(&format!("image_encoder.{name}"))?.try_into().ok()?;
    shape.iter().all(|size| (1..=LARGEST_SIZE).contains(size)).then_some(shape)
}

impl TinyVitArchitecture {
    /// MobileSAM's.
    pub fn mobile_sam() -> Self {
        Self { patch_kernel: 3, classification_head: Some(1000), ..Self::lite_medsam() }
    }

    /// LiteMedSAM's.
    pub fn lite_medsam() -> Self {
        Self {
            patch_kernel: 1,
            widths: [64, 128, 160, 320],
            depths: [2, 2, 6, 2],
            heads: [4, 5, 10],
            windows: [7, 14, 7],
            classification_head: None,
        }
    }

    fn recognise(shapes: &Shapes) -> Option<Self> {
        let [first, _, patch_kernel, _] = shape_of(shapes, "patch_embed.seq.2.c.weight")?;
        let depth = |stage: usize| shapes.count(&format!("image_encoder.layers.{stage}.blocks."));
        let mut this = Self {
            patch_kernel,
            widths: [first, 0, 0, 0],
            depths: std::array::from_fn(depth),
            heads: [0; 3],
            windows: [0; 3],
            classification_head: shape_of(shapes, "head.weight").map(|[classes, _]| classes),
        };
        for i in 0..3 {
            let block = format!("layers.{}.blocks.0.attn", i + 1);
            let [heads, distances] = shape_of(shapes, &format!("{block}.attention_biases"))?;
            let [width] = shape_of(shapes, &format!("{block}.norm.weight"))?;
            (this.heads[i], this.windows[i], this.widths[i + 1]) = (heads, distances.isqrt(), width);
            if distances != this.windows[i].pow(2) || this.windows[i] > LARGEST_WINDOW || width % heads != 0 {
                return None;
            }
        }
        matches!(patch_kernel, 1 | 3).then_some(this)
    }
}

impl EncoderArchitecture {
    /// Which encoder the tensors are of; `None` where they are of neither.
    pub(crate) fn recognise(shapes: &Shapes) -> Option<Self> {
        VitArchitecture::recognise(shapes)
            .map(Self::Vit)
            .or_else(|| TinyVitArchitecture::recognise(shapes).map(Self::TinyVit))
    }

    /// Pixels of the input for each token of the embedding, along each axis.
    pub(crate) fn stride(&self) -> i64 {
        match self {
            Self::Vit(vit) => vit.patch,
            Self::TinyVit(TinyVitArchitecture { patch_kernel: 1, .. }) => 4,
            Self::TinyVit(_) => 16,
        }
    }

    /// The families that have it.
    pub(crate) fn families(&self) -> &'static [Family] {
        match self {
            Self::Vit(_) => &[Family::Sam, Family::MedSam],
            Self::TinyVit(TinyVitArchitecture { patch_kernel: 1, .. }) => &[Family::LiteMedSam],
            Self::TinyVit(_) => &[Family::MobileSam],
        }
    }

    /// Side of the input that its weights are for.
    pub(crate) fn native_input_size(&self) -> i64 {
        match self {
            Self::Vit(vit) => vit.grid * vit.patch,
            Self::TinyVit(TinyVitArchitecture { patch_kernel: 1, .. }) => 256,
            Self::TinyVit(_) => 1024,
        }
    }

    /// "ViT-B", or the sizes where nobody gave them a name.
    pub fn name(&self) -> String {
        match self {
            Self::Vit(vit) => match (vit.width, vit.depth) {
                (768, 12) => "ViT-B".into(),
                (1024, 24) => "ViT-L".into(),
                (1280, 32) => "ViT-H".into(),
                (width, depth) => format!("ViT of width {width} and depth {depth}"),
            },
            Self::TinyVit(_) => "TinyViT".into(),
        }
    }
}

impl SamArchitecture {
    /// The encoder's input size as configured, or as its weights have it.
    pub(crate) fn new(family: Family, encoder: EncoderArchitecture, input_size: Option<i64>) -> Result<Self, String> {
        if !encoder.families().contains(&family) {
            let names: Vec<&str> = encoder.families().iter().map(|f| f.name()).collect();
            return Err(format!(
                "the family is '{}', but the file's encoder is the {} of {}",
                family.name(),
                encoder.name(),
                names.join(" and ")
            ));
        }
        let native = encoder.native_input_size();
        let input_size = input_size.unwrap_or(native);
        let stride = encoder.stride();
        // Below 64 pixels nothing is left to see, and TinyViT's windows are larger than its grid.
        if !(64..=4096).contains(&input_size) || input_size % stride != 0 {
            return Err(format!(
                "`input_size` is {input_size}, expected a multiple of {stride} from 64 to 4096 ({native} is what the weights are for)"
            ));
        }
        Ok(Self { family, encoder, input_size })
    }

    /// Side of the embedding grid in tokens.
    pub fn grid(&self) -> i64 {
        self.input_size / self.encoder.stride()
    }
}

#[cfg(test)]
mod tests;
