//! Puts a CPU kernel with its hand-written backward pass on the tape of the tensor library.

use std::cell::Cell;
use std::fmt::Debug;

use burn::backend::{Autodiff, Flex};
use burn::tensor::{Bytes, DType, Shape, Tensor};
use burn_autodiff::checkpoint::base::Checkpointer;
use burn_autodiff::checkpoint::strategy::NoCheckpointing;
use burn_autodiff::grads::Gradients;
use burn_autodiff::ops::{Backward, Ops, OpsKind};
use burn_flex::{FlexTensor, Layout};

pub(crate) type Tracked = burn::backend::tensor::FloatTensor<Autodiff<Flex>>;

/// A tensor on the CPU, with or without a place on the tape.
pub(crate) enum CpuTensor {
    Plain(FlexTensor),
    Tracked(Tracked),
}

impl CpuTensor {
    /// Whether a backward pass will ask for its gradient.
    pub(crate) fn needs_gradient(&self) -> bool {
        matches!(self, Self::Tracked(x) if x.is_tracked())
    }

    /// The tensor off the tape.
    pub(crate) fn into_plain(self) -> FlexTensor {
        match self {
            Self::Plain(x) => x,
            Self::Tracked(x) => x.into_primitive(),
        }
    }
}

thread_local! {
    static PLAIN_ONLY: Cell<bool> = const { Cell::new(false) };
}

/// Runs a function whose operations on this thread are their plain compositions, as on a device without kernels of ours.
///
/// What a GPU computes is tested in this way where there is none.
pub fn plain_only<T>(f: impl FnOnce() -> T) -> T {
    struct Restore(bool);
    impl Drop for Restore {
        fn drop(&mut self) {
            PLAIN_ONLY.set(self.0);
        }
    }
    let _restore = Restore(PLAIN_ONLY.replace(true));
    f()
}

/// The CPU form of a tensor without a tape; nothing when it is tracked or lives elsewhere.
pub(crate) fn untracked<const D: usize>(x: Tensor<D>) -> Option<FlexTensor> {
    if PLAIN_ONLY.get() { None } else { x.try_into_primitive::<Flex>().ok() }
}

/// The CPU form of a tensor; nothing when it lives elsewhere.
pub(crate) fn cpu_tensor<const D: usize>(x: Tensor<D>) -> Option<CpuTensor> {
    if PLAIN_ONLY.get() {
        return None;
    }
    match x.clone().try_into_primitive::<Flex>() {
        Ok(plain) => Some(CpuTensor::Plain(plain)),
        Err(_) => x.try_into_primitive::<Autodiff<Flex>>().ok().map(CpuTensor::Tracked),
    }
}

/// The same of an input that may not be there; an empty tensor, which needs no gradient, stands for it.
pub(crate) fn optional<const D: usize>(x: Option<Tensor<D>>) -> Option<CpuTensor> {
    match x {
        Some(x) => cpu_tensor(x),
        None => Some(CpuTensor::Plain(tensor(&[0], Vec::new()))),
    }
}

/// Whether operations on a tensor are kernels of ours and will have a backward pass: training on the CPU.
pub fn is_trained_by_kernels<const D: usize>(x: &Tensor<D>) -> bool {
    matches!(cpu_tensor(x.clone()), Some(CpuTensor::Tracked(_)))
}

/// A kernel over `N` float tensors with one float result.
pub(crate) trait Kernel<const N: usize>: Clone + Debug + Send + 'static {
    /// What the backward pass needs.
    type Saved: Clone + Debug + Send + 'static;

    fn forward(&self, inputs: [FlexTensor; N]) -> (FlexTensor, Self::Saved);

    /// The result where there will be no backward pass.
    fn value(&self, inputs: [FlexTensor; N]) -> FlexTensor {
        self.forward(inputs).0
    }

    /// Gradients of the inputs that need one.
    fn backward(&self, saved: Self::Saved, grad: FlexTensor, needs: [bool; N]) -> [Option<FlexTensor>; N];
}

#[derive(Debug)]
struct Step<K>(K);

impl<K: Kernel<N>, const N: usize> Backward<Flex, N> for Step<K> {
    type State = K::Saved;

    fn backward(self, ops: Ops<Self::State, N>, grads: &mut Gradients, _: &mut Checkpointer) {
        let grad = contiguous(grads.consume::<Flex>(&ops.node));
        let needs = ops.parents.each_ref().map(Option::is_some);
        let results = self.0.backward(ops.state, grad, needs);
        for (parent, result) in ops.parents.into_iter().zip(results) {
            if let (Some(parent), Some(result)) = (parent, result) {
                grads.register::<Flex>(parent.id, result);
            }
        }
    }
}

/// Runs a kernel; `None` when a tensor does not live on the CPU, so that the caller takes the plain composition.
pub(crate) fn apply<K: Kernel<N>, const N: usize, const R: usize>(
    kernel: K,
    inputs: [Option<CpuTensor>; N],
) -> Option<Tensor<R>> {
    if inputs.iter().any(Option::is_none) {
        return None;
    }
    let inputs = inputs.map(|x| x.expect("checked above"));
    if inputs.iter().all(|x| matches!(x, CpuTensor::Plain(_))) {
        let plain = inputs.map(|x| contiguous(x.into_plain()));
        return Some(Tensor::from_primitive::<Flex>(kernel.value(plain)));
    }
    // A constant beside tracked tensors joins the tape without needing a gradient.
    let tracked = inputs.map(|x| match x {
        CpuTensor::Plain(x) => Tracked::new(x),
        CpuTensor::Tracked(x) => x,
    });
    let nodes = tracked.each_ref().map(Tracked::node);
    let (out, saved) = kernel.forward(tracked.map(|x| contiguous(x.into_primitive())));
    let out = match Step(kernel).prepare::<NoCheckpointing>(nodes).compute_bound().stateful() {
        OpsKind::Tracked(step) => step.finish(saved, out),
        OpsKind::UnTracked(step) => step.finish(out),
    };
    Some(Tensor::from_primitive::<Autodiff<Flex>>(out))
}

/// The same values in row-major order from the start of their storage.
pub(crate) fn contiguous(x: FlexTensor) -> FlexTensor {
    if x.is_contiguous() && x.layout().start_offset() == 0 { x } else { x.to_contiguous() }
}

/// The numbers of a contiguous tensor.
pub(crate) fn numbers(x: &FlexTensor) -> &[f32] {
    &x.storage::<f32>()[..x.layout().shape().num_elements()]
}

/// The shape as a vector.
pub(crate) fn dims(x: &FlexTensor) -> Vec<usize> {
    x.layout().shape().iter().copied().collect()
}

/// A tensor from its numbers.
pub(crate) fn tensor(dims: &[usize], numbers: Vec<f32>) -> FlexTensor {
    FlexTensor::new(Bytes::from_elems(numbers), Layout::contiguous(Shape::from(dims.to_vec())), DType::F32)
}
