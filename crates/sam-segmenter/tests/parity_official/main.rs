//! The encoders of Segment Anything and `MobileSAM`, and their decoder, compute what the official code computes, on weights by
//! formula.
//!
//! The numbers come from `fixtures/make_sam_fixtures.py`; a difference is measured against the tensor's range.

#[path = "../common/formula.rs"]
mod formula;
mod mobile;
mod reference;
mod vit;
