#![doc = include_str!("../README.md")]

mod anatomy;
mod canvas;
mod data_set;
mod error;
mod picture;
mod random;
mod scanner;
mod settings;
mod shape;
mod volume;

pub use data_set::{Outcome, write_data_set};
pub use error::PhantomError;
pub use picture::write_picture;
pub use settings::PhantomSettings;
pub use volume::{Orientation, PhantomVolume, volume};
