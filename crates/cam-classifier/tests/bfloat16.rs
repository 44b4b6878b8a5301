//! The classifier in bfloat16. Alone in its program: weights and slices are drawn from libtorch's one generator, which other
//! tests would draw from as well.

use cam_classifier::{ResNetClassifier, ResNetSettings};
use stage_api::{Mode, Precision, PresenceClassifier};
use tch::{Device, Kind, Tensor};

#[test]
fn in_bfloat16_logits_and_gradients_keep_their_direction() {
    tch::manual_seed(0);
    let slices = Tensor::rand([8, 1, 96, 96], (Kind::Float, Device::Cpu));
    let run = |precision| {
        let settings = ResNetSettings { precision, blocks: [1, 1, 1, 1], width: 8, ..ResNetSettings::default() };
        let net = ResNetClassifier::new(&settings, 1, Device::Cpu).expect("settings that make sense");
        let presence = net.forward(&slices, Mode::Train);
        presence.logit.square().sum(Kind::Float).backward();
        assert!(net.tensors().iter().all(|t| t.tensor.kind() == Kind::Float) && presence.cam.kind() == Kind::Float);
        let kernel = net.tensors().into_iter().find(|t| t.name.starts_with("layer1.0.conv1")).expect("a first block");
        (presence.logit.detach(), kernel.tensor.grad())
    };
    let ((logit, gradient), (logit_16, gradient_16)) = (run(Precision::F32), run(Precision::Bf16));
    let cosine = |a: &Tensor, b: &Tensor| ((a * b).sum(Kind::Float) / (a.norm() * b.norm())).double_value(&[]);
    let found = (cosine(&logit, &logit_16), cosine(&gradient, &gradient_16));
    println!("{found:?}");
    // A random network on noise is the worst case: what tells its slices apart is little beside what they share.
    assert!(logit != logit_16 && found.0 > 0.99 && found.1 > 0.85, "{found:?}");
}
