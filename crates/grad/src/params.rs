use ndarray::{ArrayD, IxDyn};

use crate::{GradError, Gradients, Result, Tape, Value, Var};

/// A trainable tensor. Its value is shared with the tape, so a step copies it only while a tape still holds it.
#[derive(Clone, Debug)]
pub struct Param {
    value: Value,
}

impl Param {
    /// A parameter with these starting values.
    pub fn new(value: ArrayD<f32>) -> Param {
        Param { value: value.as_standard_layout().into_owned().into_shared() }
    }

    /// From values in C order.
    ///
    /// # Errors
    /// [`GradError::State`] if their number does not fit `shape`.
    pub fn from_vec(shape: &[usize], values: Vec<f32>) -> Result<Param> {
        let got = format!("{} values", values.len());
        let value = ArrayD::from_shape_vec(IxDyn(shape), values).map_err(|_| GradError::State {
            name: String::new(),
            wanted: format!("{shape:?}"),
            got,
        })?;
        Ok(Param::new(value))
    }

    /// The value.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The shape.
    pub fn shape(&self) -> &[usize] {
        self.value.shape()
    }

    /// The values in C order.
    pub fn data(&self) -> &[f32] {
        self.value.as_slice().unwrap_or(&[])
    }

    /// The values in C order, to be changed in place.
    pub fn data_mut(&mut self) -> &mut [f32] {
        self.value.as_slice_mut().unwrap_or(&mut [])
    }

    /// The parameter as a leaf of `tape`.
    pub fn var(&self, tape: &mut Tape) -> Var {
        tape.leaf(self.value.clone())
    }
}

/// Anything with named parameters. The names are stable: they are what is saved.
pub trait Module {
    /// Calls `f` with each parameter and its name, always in the same order.
    fn visit(&self, f: &mut dyn FnMut(&str, &Param));

    /// As [`visit`](Self::visit), to change them.
    fn visit_mut(&mut self, f: &mut dyn FnMut(&str, &mut Param));

    /// Number of trainable values.
    fn count(&self) -> usize {
        let mut n = 0;
        self.visit(&mut |_, p| n += p.value().len());
        n
    }

    /// Names, shapes and values, for saving.
    fn state(&self) -> Vec<(String, ArrayD<f32>)> {
        let mut all = Vec::new();
        self.visit(&mut |name, p| all.push((name.to_owned(), p.value().to_owned())));
        all
    }

    /// Takes every parameter from `find`.
    ///
    /// # Errors
    /// [`GradError::State`] naming the first parameter that is missing or of another shape; nothing is changed then.
    fn load(&mut self, find: &dyn Fn(&str) -> Option<ArrayD<f32>>) -> Result<()> {
        let (mut found, mut error) = (Vec::new(), None);
        self.visit(&mut |name, p| match find(name) {
            Some(value) if value.shape() == p.shape() => found.push(value),
            other if error.is_none() => {
                let got = other.map_or_else(|| "nothing".to_owned(), |v| format!("{:?}", v.shape()));
                error = Some(GradError::State { name: name.to_owned(), wanted: format!("{:?}", p.shape()), got });
            }
            _ => {}
        });
        if let Some(error) = error {
            return Err(error);
        }
        let mut found = found.into_iter();
        self.visit_mut(&mut |_, p| {
            if let Some(value) = found.next() {
                *p = Param::new(value);
            }
        });
        Ok(())
    }
}

/// The leaves a forward pass made for the parameters of a module, in the order of [`Module::visit`].
#[derive(Default)]
pub struct Leaves(Vec<Var>);

impl Leaves {
    /// Puts `param` on the tape and remembers it. Call in the order of [`Module::visit`].
    pub fn add(&mut self, tape: &mut Tape, param: &Param) -> Var {
        let var = param.var(tape);
        if tape.is_recording() {
            self.0.push(var.clone());
        }
        var
    }

    /// The gradients in the same order; empty where nothing flowed. The leaves are dropped, so that the parameters can be
    /// changed in place.
    pub fn gradients(self, gradients: &mut Gradients) -> Vec<Option<Vec<f32>>> {
        self.0.iter().map(|leaf| gradients.take(leaf)).collect()
    }
}
