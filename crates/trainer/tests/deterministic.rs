//! `--deterministic`, in a process of its own, because it is the process that it changes.

use predictor::device::deterministic;
use tch::{Device, Kind, Tensor};

#[test]
fn an_operation_without_a_deterministic_algorithm_is_refused() {
    let tensor = Tensor::zeros([4], (Kind::Float, Device::Cpu));
    let indices = Tensor::from_slice(&[0i64, 0, 1]);
    // What it gives depends on the order of writing.
    let put = || tensor.f_put(&indices, &Tensor::from_slice(&[1f32, 2.0, 3.0]), false).map(drop);
    put().unwrap();
    deterministic().unwrap();
    let error = put().unwrap_err().to_string();
    assert!(error.contains("does not have a deterministic implementation"), "{error}");
}
