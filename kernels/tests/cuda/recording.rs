use blemish_kernels::nearest::{self};
use blemish_tensor::TensorError;
use ndarray::Array2;

use super::*;

#[test]
fn recorded_launches_start_again_on_the_same_buffers() {
    let Some(cuda) = open() else { return };
    let (a, b) = (random((3, 20), 1), random((4, 20), 2));
    let (mut device, other) = (upload(&cuda, &a), upload(&cuda, &b));
    let wanted = |a: &Array2<f32>| nearest::pairwise_squared(a.view(), b.view()).unwrap().into_raw_vec_and_offset().0;
    let mut out = None;
    let recording = cuda
        .record(|| -> blemish_kernels::cuda::CudaResult<()> {
            out = Some(nearest::cuda::pairwise_squared(&cuda, &device, &other, [3, 4, 20])?);
            assert!(cuda.record(|| Ok::<(), TensorError>(())).is_err(), "recordings do not nest");
            Ok(())
        })
        .unwrap();
    let out = out.unwrap();
    assert_eq!(recording.launches(), 1);
    assert!(out.read().unwrap()[0] != wanted(&a)[0], "it only started with the replay");
    // The memory of a dropped buffer is kept as long as the recording.
    drop(other);
    recording.replay().unwrap();
    assert_eq!(out.read().unwrap(), wanted(&a));
    let c = random((3, 20), 3);
    device.write_at(0, c.as_slice().unwrap()).unwrap();
    recording.replay().unwrap();
    assert_eq!(out.read().unwrap(), wanted(&c));
    let used = cuda.memory_used();
    drop(recording);
    assert_eq!(cuda.memory_used(), used - 4 * 20 * 4);
    // Work that fails leaves nothing behind, and the next launch starts at once again.
    let error = cuda.record(|| {
        nearest::cuda::pairwise_squared(&cuda, &device, &device, [3, 3, 20])?;
        nearest::cuda::pairwise_squared(&cuda, &device, &device, [3, 3, 21]).map(|_| ())
    });
    assert!(error.is_err());
    let now = nearest::cuda::pairwise_squared(&cuda, &device, &device, [3, 3, 20]).unwrap().read().unwrap();
    assert_eq!(now[0], 0.0);
    // Launches of other threads are not recorded.
    let recording = cuda
        .record(|| -> blemish_kernels::cuda::CudaResult<()> {
            let work =
                || nearest::cuda::pairwise_squared(&cuda, &device, &device, [3, 3, 20])?.read().map_err(Into::into);
            let found: blemish_kernels::cuda::CudaResult<Vec<f32>> =
                std::thread::scope(|s| s.spawn(work).join().unwrap());
            assert_eq!(found?[0], 0.0);
            Ok(())
        })
        .unwrap();
    assert_eq!(recording.launches(), 0);
    recording.replay().unwrap();
}
