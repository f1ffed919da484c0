//! What kernels are launched with: scalars and arrays in device memory.

use std::marker::PhantomData;

use bytemuck::{Pod, Zeroable};
use half::bf16;

use super::Address;

/// A type that kernels take as a parameter.
pub trait KernelArgument: Copy {
    /// Its name in C++, as compilers print it.
    const CPP: &'static str;

    /// The value for a launch: its bytes in the order of the machine, aligned as the parameter is.
    fn bytes(&self) -> &[u8];
}

/// A type of which device memory holds arrays.
pub trait Element: Pod {
    /// What tensor maps call it.
    const TYPE: ElementType;
    /// `T const*` in C++.
    const CONST_POINTER: &'static str;
    /// `T*` in C++.
    const POINTER: &'static str;
}

/// The types of [`Element`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs)]
pub enum ElementType {
    U8,
    U16,
    U32,
    I32,
    U64,
    F32,
    F64,
    Bf16,
}

impl ElementType {
    /// Size of an element.
    pub fn bytes(self) -> usize {
        match self {
            Self::U8 => 1,
            Self::U16 | Self::Bf16 => 2,
            Self::U32 | Self::I32 | Self::F32 => 4,
            Self::U64 | Self::F64 => 8,
        }
    }
}

macro_rules! scalars {
    ($($rust:ty = $cpp:literal),* $(,)?) => {$(
        impl KernelArgument for $rust {
            const CPP: &'static str = $cpp;

            fn bytes(&self) -> &[u8] {
                bytemuck::bytes_of(self)
            }
        }
    )*};
}

scalars!(u32 = "unsigned int", i32 = "int", u64 = "unsigned long long", f32 = "float", f64 = "double");

macro_rules! elements {
    ($($rust:ty = $type:ident $cpp:literal),* $(,)?) => {$(
        impl Element for $rust {
            const TYPE: ElementType = ElementType::$type;
            const CONST_POINTER: &'static str = concat!($cpp, " const*");
            const POINTER: &'static str = concat!($cpp, "*");
        }
    )*};
}

elements!(
    u8 = U8 "unsigned char",
    u16 = U16 "unsigned short",
    u32 = U32 "unsigned int",
    i32 = I32 "int",
    u64 = U64 "unsigned long long",
    f32 = F32 "float",
    f64 = F64 "double",
    bf16 = Bf16 "__nv_bfloat16",
);

/// An array in device memory that a kernel reads.
#[derive(Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct Ptr<T>(pub(super) Address, pub(super) PhantomData<T>);

/// An array in device memory that a kernel writes.
#[derive(Debug, Pod, Zeroable)]
#[repr(transparent)]
pub struct PtrMut<T>(pub(super) Address, pub(super) PhantomData<T>);

impl<T> Clone for Ptr<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Clone for PtrMut<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Ptr<T> {}
impl<T> Copy for PtrMut<T> {}

impl<T> Ptr<T> {
    /// No array, where a kernel takes one or none.
    pub const NULL: Self = Self(0, PhantomData);
}

impl<T> PtrMut<T> {
    /// No array, where a kernel takes one or none.
    pub const NULL: Self = Self(0, PhantomData);

    /// The same array, to be read.
    pub fn read(self) -> Ptr<T> {
        Ptr(self.0, PhantomData)
    }
}

impl<T: Element> KernelArgument for Ptr<T> {
    const CPP: &'static str = T::CONST_POINTER;

    fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(&self.0)
    }
}

impl<T: Element> KernelArgument for PtrMut<T> {
    const CPP: &'static str = T::POINTER;

    fn bytes(&self) -> &[u8] {
        bytemuck::bytes_of(&self.0)
    }
}
