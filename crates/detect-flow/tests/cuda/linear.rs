use blemish_core::{Detect, Fit, Session};
use blemish_detect_flow::{Cflow, CflowParams};
use blemish_embed::Precision;
use blemish_tensor::Device;

use super::common::{bytes, cflow};
use super::{apart, fit, open, reload, scores};

fn params() -> CflowParams {
    let layers = vec!["blocks.1".to_owned()];
    CflowParams { layers, image_batch: 3, fibre_batch: 40, epochs: 2, flow_precision: Precision::F32, ..cflow() }
}

#[test]
fn trained_there_it_scores_as_trained_here() {
    let Some(cuda) = open() else { return };
    let (cpu, gpu) = (Device::cpu(), Device::cuda(cuda));
    for params in
        [params(), CflowParams { flow_precision: Precision::Bf16, mode: blemish_detect_flow::Mode::Paper, ..params() }]
    {
        let here = fit(&params, &cpu);
        let there = fit(&params, &gpu);
        assert_eq!(there.placement(), format!("network on {gpu} in f32; flows on {gpu}"));
        assert_eq!(here.placement(), "network on the CPU in f32; flows on the CPU");
        let (wanted, got) = (scores(here.as_ref()), scores(there.as_ref()));
        assert!(apart(&got, &wanted) < 1e-2, "{}", apart(&got, &wanted));
        // The same bits again.
        assert!(bytes(there.as_ref()) == bytes(fit(&params, &gpu).as_ref()));
        assert!(bytes(there.as_ref()) != bytes(here.as_ref()));
        // Models go from one device to the other.
        let mut moved = reload(there.as_ref());
        let on_cpu = scores(moved.as_ref());
        assert!(apart(&on_cpu, &got) < 1e-3, "{}", apart(&on_cpu, &got));
        moved.use_device(&gpu);
        assert_eq!(moved.placement(), there.placement());
        assert_eq!(scores(moved.as_ref()), got);
        moved.use_device(&cpu);
        assert_eq!(scores(moved.as_ref()), on_cpu);
    }
}

#[test]
fn a_run_goes_on_on_the_other_device() {
    let Some(cuda) = open() else { return };
    let devices = [Device::cpu(), Device::cuda(cuda)];
    let params = CflowParams { patience: None, ..params() };
    for at in [0, 1] {
        let folder = tempfile::tempdir().unwrap();
        let checkpoint = Some(folder.path().join("run.checkpoint"));
        let first = CflowParams { epochs: 1, checkpoint: checkpoint.clone(), ..params.clone() };
        fit(&first, &devices[at]);
        let second = CflowParams { epochs: 2, resume: true, checkpoint, ..params.clone() };
        let whole = scores(fit(&params, &devices[at]).as_ref());
        let other = scores(fit(&second, &devices[1 - at]).as_ref());
        assert!(apart(&other, &whole) < 1e-2, "{}", apart(&other, &whole));
    }
}

#[test]
fn resumed_there_it_is_the_same_to_the_bit() {
    let Some(cuda) = open() else { return };
    let gpu = Device::cuda(cuda);
    let folder = tempfile::tempdir().unwrap();
    let checkpoint = Some(folder.path().join("run.checkpoint"));
    let params = CflowParams { patience: None, ..params() };
    fit(&CflowParams { epochs: 1, checkpoint: checkpoint.clone(), ..params.clone() }, &gpu);
    let resumed = fit(&CflowParams { resume: true, checkpoint, ..params.clone() }, &gpu);
    assert!(bytes(resumed.as_ref()) == bytes(fit(&params, &gpu).as_ref()));
}

#[test]
fn what_a_gpu_cannot_do_the_cpu_does() {
    let Some(cuda) = open() else { return };
    let gpu = Device::cuda(cuda.clone());
    let rotated = CflowParams { soft_mixing: true, epochs: 1, ..params() };
    let model = fit(&rotated, &gpu);
    let words = model.placement();
    assert!(words.contains("flows on the CPU (cuda:0: ") && words.contains("a rotation"), "{words}");
    assert!(words.contains("trained on the CPU (cuda:0: "), "{words}");
    let (wanted, got) = (scores(fit(&rotated, &Device::cpu()).as_ref()), scores(model.as_ref()));
    assert!(apart(&got, &wanted) < 1e-2, "{}", apart(&got, &wanted));

    let limit = cuda.memory_budget();
    let small = CflowParams { epochs: 1, ..params() };
    cuda.set_memory_budget(cuda.memory_used() + 1000);
    let model = fit(&small, &gpu);
    cuda.set_memory_budget(limit);
    let words = model.placement();
    assert!(words.contains("trained on the CPU (cuda:0: ") && words.contains("more bytes on the GPU"), "{words}");
    assert!(bytes(model.as_ref()) == bytes(fit(&small, &Device::cpu()).as_ref()));
}

#[test]
fn the_flows_of_a_model_are_here() {
    let Some(cuda) = open() else { return };
    let model = CflowParams { epochs: 1, ..params() };
    let session = Session { device: Device::cuda(cuda), ..Session::quiet(5) };
    let model: Cflow = model.fit(&session, &super::common::noise(5)).unwrap();
    assert_eq!(model.flows().len(), 1);
    assert!(model.stages().is_none(), "features stay on the GPU");
}
