//! Operations whose products run on a GPU, or on the stand-in driver of kernels/emu (`cargo xtask emu`), against the CPU.
#![cfg(feature = "cuda")]

use blemish_grad::ops::{self, Conv, ConvTranspose};
use blemish_grad::{Gradients, Tape, Value, Var};
use blemish_tensor::{Device, cuda::Cuda};
use ndarray::{ArrayD, IxDyn};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

fn open() -> Option<Cuda> {
    match Cuda::open(0) {
        Ok(cuda) => Some(cuda),
        Err(why) if std::env::var_os("BLEMISH_REQUIRE_CUDA").is_some() => panic!("{why}"),
        Err(why) => {
            eprintln!("skipped: {why}");
            None
        }
    }
}

fn random(shape: &[usize], seed: u64) -> Value {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || rng.random_range(-1.0f32..1.0)).into_shared()
}

type Run = Box<dyn Fn(&mut Tape, &[Var]) -> blemish_grad::Result<Var>>;

/// An operation on leaves of these shapes.
struct Case {
    name: &'static str,
    shapes: Vec<Vec<usize>>,
    run: Run,
}

impl Case {
    /// The output and the gradients of all leaves, of random weights for the outputs.
    fn on(&self, tape: Tape) -> (Vec<f32>, Vec<Vec<f32>>) {
        let mut tape = tape;
        let leaves: Vec<Var> =
            self.shapes.iter().zip(0..).map(|(shape, seed)| tape.leaf(random(shape, seed))).collect();
        let out = (self.run)(&mut tape, &leaves).unwrap();
        let slope = random(out.shape(), 9).into_owned();
        let gradients: Gradients = tape.backward_from(&out, slope).unwrap();
        (out.data().to_vec(), leaves.iter().map(|leaf| gradients.get(leaf).unwrap().to_vec()).collect())
    }
}

fn cases() -> Vec<Case> {
    let linear = |shape: [usize; 3], bias: bool| {
        let [rows, inputs, outputs] = shape;
        let mut shapes = vec![vec![rows, inputs], vec![outputs, inputs]];
        shapes.extend(bias.then(|| vec![outputs]));
        let run = |tape: &mut Tape, v: &[Var]| ops::linear(tape, &v[0], &v[1], v.get(2));
        Case { name: "linear", shapes, run: Box::new(run) }
    };
    let conv = |[n, h, w]: [usize; 3], [inputs, outputs, k]: [usize; 3], bias: bool| {
        let mut shapes = vec![vec![n, h, w, inputs], vec![outputs, inputs, k, k]];
        shapes.extend(bias.then(|| vec![outputs]));
        let run = move |tape: &mut Tape, v: &[Var]| ops::conv2d(tape, &v[0], &v[1], v.get(2), Conv::same(k));
        Case { name: "conv2d", shapes, run: Box::new(run) }
    };
    let transpose = |k: usize| {
        let shapes = vec![vec![2, 5, 4, 6], vec![6, 8, k, k], vec![8]];
        let how = ConvTranspose { padding: k / 2, ..ConvTranspose::default() };
        let run = move |tape: &mut Tape, v: &[Var]| ops::conv_transpose2d(tape, &v[0], &v[1], v.get(2), how);
        Case { name: "conv_transpose2d", shapes, run: Box::new(run) }
    };
    vec![
        linear([7, 20, 12], true),
        linear([70, 33, 5], false),
        conv([2, 6, 5], [8, 4, 3], true),
        conv([1, 7, 9], [3, 5, 1], true),
        conv([3, 4, 4], [5, 12, 5], false),
        transpose(3),
    ]
}

#[test]
fn products_agree_with_the_cpu() {
    let Some(cuda) = open() else { return };
    let device = Device::cuda(cuda.clone());
    for case in cases() {
        let (wanted, gradients) = case.on(Tape::recording());
        let before = cuda.memory_peak();
        let (got, there) = case.on(Tape::recording().on(&device, 1));
        assert!(cuda.memory_peak() > 0 && cuda.memory_peak() >= before, "{}", case.name);
        assert_eq!(cuda.memory_used(), 0);
        let close = |what: &str, got: &[f32], wanted: &[f32]| {
            assert_eq!(got.len(), wanted.len());
            let size = wanted.iter().fold(1.0f32, |m, v| m.max(v.abs()));
            for (g, w) in got.iter().zip(wanted) {
                assert!((g - w).abs() <= 1e-5 * size, "{} {what}: {g}, not {w}", case.name);
            }
        };
        close("output", &got, &wanted);
        for (i, (got, wanted)) in there.iter().zip(&gradients).enumerate() {
            close(&format!("gradient {i}"), got, wanted);
        }
        // Too small, or no room: the CPU's bits.
        assert_eq!(case.on(Tape::recording().on(&device, usize::MAX)), (wanted.clone(), gradients.clone()));
        let budget = cuda.memory_budget();
        cuda.set_memory_budget(16);
        let none = case.on(Tape::recording().on(&device, 1));
        cuda.set_memory_budget(budget);
        assert_eq!(none, (wanted, gradients), "{}", case.name);
    }
}

#[test]
fn other_convolutions_stay_on_the_cpu() {
    let Some(cuda) = open() else { return };
    let device = Device::cuda(cuda.clone());
    let hows = [
        Conv { stride: 2, ..Conv::same(3) },
        Conv { padding: 0, ..Conv::default() },
        Conv { dilation: 2, padding: 2, ..Conv::default() },
        Conv { groups: 2, ..Conv::same(3) },
    ];
    for how in hows {
        let shapes = vec![vec![2, 6, 6, 4], vec![4, 4 / how.groups, 3, 3]];
        let run = move |tape: &mut Tape, v: &[Var]| ops::conv2d(tape, &v[0], &v[1], None, how);
        let case = Case { name: "conv2d", shapes, run: Box::new(run) };
        assert_eq!(case.on(Tape::recording().on(&device, 1)), case.on(Tape::recording()), "{how:?}");
    }
    // A tape that records nothing has the same products.
    let (x, weight) = (Var::constant(random(&[3, 8], 1)), Var::constant(random(&[4, 8], 2)));
    let here = ops::linear(&mut Tape::inference(), &x, &weight, None).unwrap();
    let there = ops::linear(&mut Tape::inference().on(&device, 1), &x, &weight, None).unwrap();
    for (a, b) in here.data().iter().zip(there.data()) {
        assert!((a - b).abs() < 1e-5);
    }
}
