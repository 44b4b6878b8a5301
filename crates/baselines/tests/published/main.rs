//! TransUNet and MultiMix against outputs and gradients of their published code; `../fixtures/make_published_fixtures.py` ran it.

mod formula;
mod multi_mix;
mod trans_unet;
mod weights;
