//! Activation checkpointing: a block whose inner results are not kept, but computed again on the way back.
//!
//! # What it computes
//! The block itself, twice: forward without a tape, keeping its input alone; backward once more with a tape of its own,
//! which gives the gradients of the input and of the block's parameters. Everything inside must repeat exactly, so random
//! masks come from named streams.
//!
//! # Reference
//! Chen et al. 2016.

use std::fmt::{self, Debug, Formatter};

use burn::backend::{Autodiff, Flex};
use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Gradients as Taken, Tensor};
use burn_autodiff::NodeId;
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::FlexTensor;

use crate::Precision;
use crate::tape::{CpuTensor, Kernel, Tracked, apply, cpu_tensor, tensor};

/// A block, the function that runs it, and where the gradients of its parameters belong.
struct Block<M, F> {
    module: M,
    run: F,
    precision: Precision,
    /// In the order in which the module is visited; none for what is not trained.
    parameters: Vec<Option<NodeId>>,
}

impl<M, F> Debug for Block<M, F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        write!(f, "recomputed block of {} parameters", self.parameters.len())
    }
}

impl<M, F> Backward<Flex, 1> for Block<M, F>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<3>) -> Tensor<3> + Send + 'static,
{
    type State = FlexTensor;

    fn backward(self, ops: Ops<FlexTensor, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = grads.consume::<Flex>(&ops.node);
        let x = leaf::<3>(ops.state);
        let module = self.module.map(&mut Track);
        let out = self.precision.scope(|| (self.run)(&module, x.clone()));
        let seeded: Option<Tensor<1>> = apply(Seed(grad), [cpu_tensor(out)]);
        let inner = seeded.expect("the block ran on the CPU before").backward();
        if let ([Some(parent)], Some(dx)) = (&ops.parents, gradient(&x, &inner)) {
            grads.register::<Flex>(parent.id, dx);
        }
        module.visit(&mut Register { from: &inner, into: grads, nodes: self.parameters.into_iter() });
    }
}

/// Starts a backward pass from a given gradient.
#[derive(Debug, Clone)]
struct Seed(FlexTensor);

impl Kernel<1> for Seed {
    type Saved = ();

    fn forward(&self, _: [FlexTensor; 1]) -> (FlexTensor, ()) {
        (tensor(&[1], vec![0.0]), ())
    }

    fn backward(&self, (): (), _: FlexTensor, _: [bool; 1]) -> [Option<FlexTensor>; 1] {
        [Some(self.0.clone())]
    }
}

fn leaf<const D: usize>(x: FlexTensor) -> Tensor<D> {
    Tensor::from_primitive::<Autodiff<Flex>>(Tracked::new(x)).require_grad()
}

fn gradient<const D: usize>(x: &Tensor<D>, grads: &Taken) -> Option<FlexTensor> {
    x.grad(grads)?.try_into_primitive::<Flex>().ok()
}

/// Puts every parameter on a tape of its own.
struct Track;

impl ModuleMapper for Track {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|x| match x.clone().try_into_primitive::<Flex>() {
            Ok(plain) => leaf(plain),
            Err(_) => x,
        })
    }
}

/// Collects the tape nodes of parameters.
#[derive(Default)]
struct Nodes(Vec<Option<NodeId>>);

impl ModuleVisitor for Nodes {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.0.push(match cpu_tensor(param.val()) {
            Some(CpuTensor::Tracked(x)) if x.is_tracked() => Some(x.id()),
            _ => None,
        });
    }
}

/// Hands the gradients of the inner tape to the outer one.
struct Register<'a, I> {
    from: &'a Taken,
    into: &'a mut Gradients,
    nodes: I,
}

impl<I: Iterator<Item = Option<NodeId>>> ModuleVisitor for Register<'_, I> {
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        if let (Some(Some(node)), Some(grad)) = (self.nodes.next(), gradient(&param.val(), self.from)) {
            self.into.register::<Flex>(node, grad);
        }
    }
}

/// Runs a block on `x` `[B, T, C]`, keeping only `x` for the backward pass.
///
/// Where `x` needs no gradient or does not live on the CPU, the block runs as it is.
pub fn recompute<M, F>(module: &M, x: Tensor<3>, run: F) -> Tensor<3>
where
    M: Module + 'static,
    F: Fn(&M, Tensor<3>) -> Tensor<3> + Send + 'static,
{
    let input = match cpu_tensor(x.clone()) {
        Some(CpuTensor::Tracked(input)) if input.is_tracked() => input,
        _ => return run(module, x),
    };
    let mut nodes = Nodes::default();
    module.visit(&mut nodes);
    let module = module.valid();
    let Ok(out) = run(&module, x.inner()).try_into_primitive::<Flex>() else {
        unreachable!("a block without a tape gives a tensor without a tape")
    };
    let block = Block { module, run, precision: Precision::current(), parameters: nodes.0 };
    let node = input.node();
    let out = match block.prepare::<NoCheckpointing>([node]).compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(input.into_primitive(), out),
        OpsKind::UnTracked(step) => step.finish(out),
    };
    Tensor::from_primitive::<Autodiff<Flex>>(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gradcheck::{random, values};
    use crate::linear::{Layout, linear};
    use crate::norm::rms_norm;
    use burn::tensor::Device;

    #[derive(Module, Debug)]
    struct Layer {
        norm: Param<Tensor<1>>,
        weight: Param<Tensor<2>>,
    }

    fn run(layer: &Layer, x: Tensor<3>) -> Tensor<3> {
        x.clone() + linear(rms_norm(x, layer.norm.val(), 1e-5), layer.weight.val(), None, Layout::OutIn).tanh()
    }

    /// Value and gradients of input, norms and weights after three layers.
    fn gradients(recomputed: bool, frozen: bool) -> Vec<Vec<f32>> {
        let device = Device::flex().autodiff();
        let on = |x: Tensor<2>| Tensor::<2>::from_data(x.into_data(), &device);
        let layers: Vec<Layer> = (0..3)
            .map(|i| Layer {
                norm: Param::from_tensor(on(random([1, 5], 10 + i)).reshape([5])),
                weight: Param::from_tensor(on(random([5, 5], 20 + i))).set_require_grad(!(frozen && i == 1)),
            })
            .collect();
        let x = Tensor::<3>::from_data(random([2, 3, 5], 1).into_data(), &device).require_grad();
        let mut y = x.clone() * 2.0;
        for layer in &layers {
            y = if recomputed { recompute(layer, y, run) } else { run(layer, y) };
        }
        let direction = Tensor::<3>::from_data(random([2, 3, 5], 9).into_data(), &device);
        let value = values(y.clone());
        let grads = (y * direction).sum().backward();
        let mut all = vec![value, x.grad(&grads).map(values).unwrap_or_default()];
        for layer in &layers {
            all.push(layer.norm.val().grad(&grads).map(values).unwrap_or_default());
            all.push(layer.weight.val().grad(&grads).map(values).unwrap_or_default());
        }
        all
    }

    #[test]
    fn gives_the_same_numbers_as_keeping_everything() {
        assert_eq!(gradients(true, false), gradients(false, false));
        assert!(gradients(true, false).iter().all(|g| !g.is_empty()));
    }

    #[test]
    fn frozen_parameters_get_no_gradient() {
        let all = gradients(true, true);
        assert_eq!(all, gradients(false, true));
        assert!(all[5].is_empty());
    }

    #[test]
    fn without_a_tape_the_block_just_runs() {
        let layer = Layer { norm: Param::from_tensor(random([5], 1)), weight: Param::from_tensor(random([5, 5], 2)) };
        let x = random([2, 3, 5], 3);
        assert_eq!(values(recompute(&layer, x.clone(), run)), values(run(&layer, x)));
    }
}
