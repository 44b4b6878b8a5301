//! What a store was made of and how: the content of `store.json`.

use crate::StoreError;
use serde::{Deserialize, Serialize};

/// The version of the layout and of the meaning of its numbers that is written. Version 1 is read, any other is refused.
pub const FORMAT_VERSION: u32 = 2;

/// When intensities are clipped to the window.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WindowAt {
    /// By the loader: the store holds HU over the whole stored range.
    #[default]
    Load,
    /// Before the resize, as the SAM-Mix authors' script does: the store holds HU of the window only.
    Prepare,
}

/// How a volume's slices get the store's size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scale {
    /// The longer side fills the slice.
    #[default]
    Fit,
    /// Not at all: smaller slices are padded, larger ones are refused.
    Native,
}

/// How a mask gets another size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum MaskResize {
    /// A pixel is the target if more than half of its area is: the mask stays where its image is.
    #[default]
    Area,
    /// The pixel in which the new one's centre lies, as PIL's `NEAREST`.
    Nearest,
}

/// A CT display window in HU.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Window {
    /// Centre, HU.
    pub level: f32,
    /// Width, HU, above 0.
    pub width: f32,
}

impl Default for Window {
    /// Level 40, width 400: HU in `[-160, 240]`, the paper's window.
    fn default() -> Self {
        Self { level: 40.0, width: 400.0 }
    }
}

impl Window {
    /// The lower end in HU.
    #[inline]
    pub fn low(&self) -> f32 {
        self.level - 0.5 * self.width
    }

    /// The upper end in HU.
    #[inline]
    pub fn high(&self) -> f32 {
        self.level + 0.5 * self.width
    }

    /// HU to `[0, 1]`: 0 at and below the window's lower end, 1 at and above its upper end.
    #[inline]
    pub fn unit(&self, hu: f32) -> f32 {
        ((hu - self.low()) / self.width).clamp(0.0, 1.0)
    }
}

/// How slices were made from volumes; a store has one of these.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreSettings {
    /// Side of the stored square slices in pixels.
    pub slice_size: usize,
    /// HU are clipped to this closed range; its lower end also fills the padding (air).
    pub stored_hu: [i16; 2],
    /// When the window is applied.
    pub window_at: WindowAt,
    /// The window; it has an effect on the store only with [`WindowAt::Prepare`].
    pub window: Window,
    /// How slices get the store's size.
    #[serde(default, skip_serializing_if = "is_default")]
    pub scale: Scale,
    /// How masks are resized.
    #[serde(default, skip_serializing_if = "is_default")]
    pub mask_resize: MaskResize,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

impl Default for StoreSettings {
    /// 256 pixels, HU in `[-1024, 3071]` (12 bits), windowed by the loader.
    fn default() -> Self {
        Self {
            slice_size: 256,
            stored_hu: [-1024, 3071],
            window_at: WindowAt::default(),
            window: Window::default(),
            scale: Scale::default(),
            mask_resize: MaskResize::default(),
        }
    }
}

impl StoreSettings {
    /// Checks every range; the error names the key.
    pub fn check(&self) -> Result<(), StoreError> {
        let error = |key, found: String, expected| Err(StoreError::Setting { key, found, expected });
        let [low, high] = self.stored_hu;
        if !(8..=4096).contains(&self.slice_size) {
            return error("slice_size", self.slice_size.to_string(), "8 to 4096 pixels");
        }
        if low >= high {
            return error("stored_hu", format!("[{low}, {high}]"), "two HU values, the lower one first");
        }
        if !(self.window.width.is_finite() && self.window.width > 0.0) {
            return error("window.width", self.window.width.to_string(), "a number above 0");
        }
        if !self.window.level.is_finite() {
            return error("window.level", self.window.level.to_string(), "a finite number");
        }
        Ok(())
    }
}

/// The content of `store.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StoreInfo {
    /// [`FORMAT_VERSION`] of the program that wrote the store.
    pub format_version: u32,
    /// The manifest's name, for example `lits`.
    pub dataset: String,
    /// The organ that the masks show, for example `liver`.
    pub target: String,
    /// How slices were made.
    pub settings: StoreSettings,
    /// Version of the program that made the store.
    pub tool_version: String,
    /// The manifest that described the source, as it was used.
    pub manifest: serde_json::Value,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_papers_window_is_minus_160_to_240_hu() {
        let window = Window::default();
        assert_eq!((window.low(), window.high()), (-160.0, 240.0));
        assert_eq!([-1024.0, -160.0, 40.0, 240.0, 3071.0].map(|hu| window.unit(hu)), [0.0, 0.0, 0.5, 1.0, 1.0]);
    }

    #[test]
    fn settings_out_of_range_are_refused_by_name() {
        let message = |settings: StoreSettings| settings.check().unwrap_err().to_string();
        let default = StoreSettings::default();
        assert!(default.check().is_ok());
        assert_eq!(
            message(StoreSettings { slice_size: 0, ..default.clone() }),
            "store setting `slice_size` is 0, expected 8 to 4096 pixels"
        );
        assert!(message(StoreSettings { stored_hu: [5, 5], ..default.clone() }).contains("`stored_hu` is [5, 5]"));
        let window = Window { level: 40.0, width: f32::NAN };
        assert!(message(StoreSettings { window, ..default }).contains("`window.width` is NaN"));
    }
}
