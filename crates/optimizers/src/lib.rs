//! How parameters move: optimisers whose state can be saved, the course of learning rates, the average of the weights, and the
//! patterns by which configurations name parameters. Nothing here knows what is trained.

pub mod average;
pub mod config;
pub mod optimizer;
pub mod patterns;
pub mod schedule;
