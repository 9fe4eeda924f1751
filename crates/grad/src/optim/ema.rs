use crate::{Module, Param};

/// An exponential moving average of a module's parameters.
#[derive(Clone, Debug)]
pub struct Ema {
    decay: f32,
    average: Vec<Param>,
}

impl Ema {
    /// Starts at the module's present values; `decay` (0 to 1) is the share kept at each update.
    pub fn new(module: &dyn Module, decay: f32) -> Ema {
        let mut average = Vec::new();
        module.visit(&mut |_, p| average.push(p.clone()));
        Ema { decay: decay.clamp(0.0, 1.0), average }
    }

    /// Moves the average towards the module.
    pub fn update(&mut self, module: &dyn Module) {
        let (decay, mut average) = (self.decay, self.average.iter_mut());
        module.visit(&mut |_, p| {
            if let Some(a) = average.next() {
                a.data_mut().iter_mut().zip(p.data()).for_each(|(a, p)| *a = decay * *a + (1.0 - decay) * p);
            }
        });
    }

    /// Writes the average into the module.
    pub fn copy_to(&self, module: &mut dyn Module) {
        let mut average = self.average.iter();
        module.visit_mut(&mut |_, p| {
            if let Some(a) = average.next() {
                *p = a.clone();
            }
        });
    }
}
