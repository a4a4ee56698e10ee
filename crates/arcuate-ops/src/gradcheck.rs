//! Gradient checks: a fused operation against its plain composition, and a function against finite differences.

use burn::tensor::{Device, Tensor, TensorData};

use crate::rng::Stream;

/// Normal random numbers on the CPU, the same for the same seed.
pub fn random<const D: usize>(shape: [usize; D], seed: u64) -> Tensor<D> {
    let mut stream = Stream::new(seed, "gradcheck", 0, 0);
    let numbers: Vec<f32> = (0..shape.iter().product()).map(|_| stream.normal() as f32).collect();
    Tensor::from_data(TensorData::new(numbers, shape), &Device::flex())
}

/// The numbers of a tensor in row-major order.
pub fn values<const D: usize>(x: Tensor<D>) -> Vec<f32> {
    x.into_data().convert::<f32>().try_to_vec::<f32>().expect("converted to f32")
}

/// Runs a function in a pool of so many threads.
#[cfg(test)]
pub(crate) fn on_threads<T: Send>(threads: usize, f: impl FnOnce() -> T + Send) -> T {
    rayon::ThreadPoolBuilder::new().num_threads(threads).build().expect("a pool").install(f)
}

/// Relative L2 distance of two vectors; absolute when the second is zero.
pub fn distance(x: &[f32], y: &[f32]) -> f64 {
    assert_eq!(x.len(), y.len(), "lengths differ");
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    let apart = norm(&mut x.iter().zip(y).map(|(x, y)| f64::from(*x) - f64::from(*y)));
    let size = norm(&mut y.iter().map(|y| f64::from(*y)));
    if size > 1e-12 { apart / size } else { apart }
}

pub(crate) type Three<const A: usize, const B: usize, const C: usize> = (Tensor<A>, Tensor<B>, Tensor<C>);

/// Value and gradients of a function of three tensors on a device with a tape, in a random direction.
pub(crate) fn pass<const A: usize, const B: usize, const C: usize, const D: usize>(
    inputs: &Three<A, B, C>,
    f: &dyn Fn(Three<A, B, C>) -> Tensor<D>,
    device: &Device,
) -> [Vec<f32>; 4] {
    let x = Tensor::<A>::from_data(inputs.0.to_data(), device).require_grad();
    let y = Tensor::<B>::from_data(inputs.1.to_data(), device).require_grad();
    let z = Tensor::<C>::from_data(inputs.2.to_data(), device).require_grad();
    let out = f((x.clone(), y.clone(), z.clone()));
    // A random direction, so that every element of the gradient matters.
    let direction = Tensor::<D>::from_data(random(out.dims(), 99).into_data(), device);
    let grads = (out.clone() * direction).sum().backward();
    let grad = |g: Option<Vec<f32>>| g.unwrap_or_default();
    [values(out), grad(x.grad(&grads).map(values)), grad(y.grad(&grads).map(values)), grad(z.grad(&grads).map(values))]
}

/// Asserts that two functions of three tensors agree in value and in all gradients (relative L2 below 2e-5).
///
/// # Panics
/// When they differ.
pub fn agrees<const A: usize, const B: usize, const C: usize, const D: usize>(
    inputs: Three<A, B, C>,
    fused: impl Fn(Three<A, B, C>) -> Tensor<D>,
    plain: impl Fn(Three<A, B, C>) -> Tensor<D>,
) {
    let device = Device::flex().autodiff();
    let untracked = values(fused((inputs.0.clone(), inputs.1.clone(), inputs.2.clone())));
    let (a, b) = (pass(&inputs, &fused, &device), pass(&inputs, &plain, &device));
    assert_eq!(untracked, a[0], "value differs without a tape");
    for (i, (a, b)) in a.iter().zip(&b).enumerate() {
        let apart = distance(a, b);
        assert!(apart < 2e-5, "part {i} (0 value, 1.. gradients) differs by {apart:e}");
    }
}
