//! What a kernel is called with.

/// A kernel: an `extern "C" __global__` function.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Its name.
    pub name: String,
    /// The file that defines it, from the root of the project: `kernels/softmax.cu`.
    pub file: String,
    /// Its parameters in order.
    pub arguments: Vec<Argument>,
}

/// A parameter of a kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Argument {
    /// Bytes of a value.
    pub size: usize,
    /// Whether it is a pointer.
    pub pointer: bool,
    /// Its type as C++ compilers print it: `float const*`, `unsigned int`.
    pub type_name: String,
}
