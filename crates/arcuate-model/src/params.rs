//! Walks over the named parameters of a network.

use std::collections::BTreeMap;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::tensor::{Tensor, TensorData};

/// The path of the parameter that is being visited, as its public name.
struct Path {
    parts: Vec<String>,
    /// What a field named `body` is called in public: several networks share their Rust type.
    body: &'static str,
}

impl Path {
    fn new(body: &'static str) -> Self {
        Self { parts: Vec::new(), body }
    }

    fn enter(&mut self, name: &str) {
        let name = match name {
            "body" => self.body,
            // `self` is a Rust keyword, and Rust fields are not capitalised.
            "self_" => "self",
            "layer_norm_" => "LayerNorm",
            // Variants of an enum have no name in public.
            variant if variant.starts_with(char::is_uppercase) => "",
            other => other,
        };
        self.parts.push(name.to_string());
    }

    fn exit(&mut self) {
        self.parts.pop();
    }

    fn name(&self) -> String {
        let parts: Vec<&str> = self.parts.iter().map(String::as_str).filter(|part| !part.is_empty()).collect();
        parts.join(".")
    }
}

/// Called with every parameter.
pub trait Visit {
    /// One parameter: its public name and its value.
    fn visit<const D: usize>(&mut self, name: &str, value: &Param<Tensor<D>>);
}

/// Called with every parameter to replace it.
pub trait Replace {
    /// The new parameter in place of the old.
    fn replace<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>>;
}

struct Visitor<'a, V>(Path, &'a mut V);

impl<V: Visit> ModuleVisitor for Visitor<'_, V> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.exit();
    }
    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.1.visit(&self.0.name(), param);
    }
}

struct Mapper<'a, R>(Path, &'a mut R);

impl<R: Replace> ModuleMapper for Mapper<'_, R> {
    fn enter_module(&mut self, name: &str, _: &str) {
        self.0.enter(name);
    }
    fn exit_module(&mut self, _: &str, _: &str) {
        self.0.exit();
    }
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.1.replace(&self.0.name(), param)
    }
}

/// Visits all parameters; `body` is what a field of that name is called in public.
pub(crate) fn visit<M: Module>(module: &M, body: &'static str, visitor: &mut impl Visit) {
    module.visit(&mut Visitor(Path::new(body), visitor));
}

/// Replaces all parameters; `body` is what a field of that name is called in public.
pub(crate) fn replace<M: Module>(module: M, body: &'static str, mapper: &mut impl Replace) -> M {
    module.map(&mut Mapper(Path::new(body), mapper))
}

/// Whether a name is that of numbers which are kept with the weights but never trained: running statistics.
pub fn is_buffer(name: &str) -> bool {
    name.ends_with(".running_mean") || name.ends_with(".running_var")
}

/// Name and shape of one parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParameterInfo {
    /// Public tensor name.
    pub name: String,
    /// Shape as stored.
    pub shape: Vec<usize>,
}

impl ParameterInfo {
    /// Numbers in it.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether it is kept with the weights but never trained.
    pub fn is_buffer(&self) -> bool {
        is_buffer(&self.name)
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[derive(Default)]
pub(crate) struct Infos(pub Vec<ParameterInfo>);

impl Visit for Infos {
    fn visit<const D: usize>(&mut self, name: &str, value: &Param<Tensor<D>>) {
        self.0.push(ParameterInfo { name: name.to_string(), shape: value.val().dims().to_vec() });
    }
}

/// All values as host data.
#[derive(Default)]
pub(crate) struct Values(pub BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Visit for Values {
    fn visit<const D: usize>(&mut self, name: &str, value: &Param<Tensor<D>>) {
        let value = value.val();
        let shape = value.dims().to_vec();
        self.0.insert(name.to_string(), (shape, arcuate_ops::gradcheck::values(value)));
    }
}

/// Puts a value made from name and shape in place of every parameter for which `0` gives one.
pub(crate) struct Fill<F>(pub F);

impl<F: FnMut(&str, &[usize]) -> Option<Vec<f32>>> Replace for Fill<F> {
    fn replace<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let shape = param.val().dims();
        match (self.0)(name, &shape) {
            Some(values) => param.map(|old| with_values(&old, values)),
            None => param,
        }
    }
}

/// A tensor of the same shape, device and tape with other values.
pub fn with_values<const D: usize>(old: &Tensor<D>, values: Vec<f32>) -> Tensor<D> {
    let tracked = old.is_require_grad();
    let new = Tensor::from_data(TensorData::new(values, old.dims()), &old.device());
    if tracked { new.require_grad() } else { new }
}
