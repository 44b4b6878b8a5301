//! What a checkpoint was trained as.

use serde::{Deserialize, Serialize};
use stage_api::MaskChoice;

/// What a checkpoint was trained as: decides how slices are prepared and which masks are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Family {
    /// Segment Anything (Kirillov et al., 2023): ViT-B, ViT-L, ViT-H.
    Sam,
    /// MedSAM (Ma et al., 2024): SAM's ViT-B, trained on medical images.
    #[serde(rename = "medsam")]
    MedSam,
    /// MobileSAM (Zhang et al., 2023): SAM with a TinyViT encoder.
    MobileSam,
    /// LiteMedSAM: a TinyViT encoder for inputs of 256², trained on medical images.
    #[serde(rename = "lite-medsam")]
    LiteMedSam,
}

impl std::str::FromStr for Family {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let names = || Self::ALL.map(Self::name).join(", ");
        Self::named(name).ok_or_else(|| format!("no family is called '{name}', expected one of {}", names()))
    }
}

impl Family {
    const ALL: [Self; 4] = [Self::Sam, Self::MedSam, Self::MobileSam, Self::LiteMedSam];

    /// The name in configurations and files.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sam => "sam",
            Self::MedSam => "medsam",
            Self::MobileSam => "mobile-sam",
            Self::LiteMedSam => "lite-medsam",
        }
    }

    pub(crate) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.name() == name)
    }

    /// Of the published files.
    pub(crate) fn of_file(sha256: &str) -> Option<Self> {
        PUBLISHED.iter().find(|(known, _)| *known == sha256).map(|&(_, family)| family)
    }

    /// How slices are prepared.
    pub fn normalization(self) -> InputNormalization {
        match self {
            Self::Sam | Self::MobileSam => InputNormalization::PixelMean,
            Self::MedSam | Self::LiteMedSam => InputNormalization::MinMax,
        }
    }

    /// The masks that the decoder was trained to give: the medical ones with the single-mask token alone.
    pub(crate) fn masks(self) -> MaskChoice {
        match self {
            Self::Sam | Self::MobileSam => MaskChoice::Three,
            Self::MedSam | Self::LiteMedSam => MaskChoice::Single,
        }
    }
}

/// SHA-256 of the published files.
const PUBLISHED: [(&str, Family); 6] = [
    // sam_vit_b_01ec64.pth, sam_vit_l_0b3195.pth, sam_vit_h_4b8939.pth
    ("ec2df62732614e57411cdcf32a23ffdf28910380d03139ee0f4fcbe91eb8c912", Family::Sam),
    ("3adcc4315b642a4d2101128f611684e8734c41232a17c648ed1693702a49a622", Family::Sam),
    ("a7bf3b02f3ebf1267aba913ff637d9a2d5c33d3173bb679e46d9f338c26f262e", Family::Sam),
    // medsam_vit_b.pth
    ("34b34b78c1d18cb8c6bf84cf9c00e135d6d6c965699f3c0e31ef1bc9dcb5be74", Family::MedSam),
    // mobile_sam.pt
    ("6dbb90523a35330fedd7f1d3dfc66f995213d81b29a5ca8108dbcdd4e37d6c2f", Family::MobileSam),
    // lite_medsam.pth
    ("79d8c9dca6db4d69d3f905579e5250af05e859fff9c1f543e89a513c3028ce76", Family::LiteMedSam),
];

/// From a slice in `[0, 1]`, whose longest side was brought to the input's, to the encoder's input; padding at the right
/// and bottom is 0 after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputNormalization {
    /// `(255 · x − mean) / std` of each of three channels, with SAM's means and standard deviations.
    PixelMean,
    /// Each slice stretched from its own range to `[0, 1]`; three equal channels.
    MinMax,
}

impl InputNormalization {
    /// The name in the metadata of files.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::PixelMean => "pixel-mean",
            Self::MinMax => "min-max",
        }
    }
}
