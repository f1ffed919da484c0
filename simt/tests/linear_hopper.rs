//! `kernels/linear_hopper.cu` against sums in f64, over sizes at the edges of its tiles.

use std::hash::{BuildHasher, RandomState};

use half::bf16;
use simt::{Build, Copies, Emulator, Schedule, Swizzle, TensorMap};

const ROWS: u32 = 128;
const THREADS: u32 = 288;
const SHARED: u32 = 131_136;

/// Both builds, the one that checks in orders drawn anew, which a failure shows.
fn emulators() -> [Emulator; 2] {
    let seed = RandomState::new().hash_one(0);
    [
        Emulator::open(Build::Plain).unwrap(),
        Emulator::open(Build::Check).unwrap().schedule(Schedule::Random(seed)).copies(Copies::Random(seed)),
    ]
}

/// Numbers from -1 to 1 that look like chance.
fn matrix(len: usize, salt: u64) -> Vec<bf16> {
    let mut state = salt;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        bf16::from_f32((state >> 40) as f32 / f32::powi(2.0, 23) - 1.0)
    };
    (0..len).map(|_| next()).collect()
}

/// What the kernels do with the sums.
#[derive(Clone, Copy, Debug)]
enum Output {
    F32,
    Bf16,
    Add,
}

impl Output {
    fn kernel(self) -> &'static str {
        match self {
            Self::F32 => "linear_hopper_f32",
            Self::Bf16 => "linear_hopper_bf16",
            Self::Add => "linear_hopper_add",
        }
    }

    fn element_bytes(self) -> usize {
        if let Self::Bf16 = self { 2 } else { 4 }
    }

    fn read(self, bytes: &[u8]) -> f64 {
        match self {
            Self::Bf16 => bf16::from_ne_bytes(bytes.try_into().unwrap()).to_f64(),
            _ => f32::from_ne_bytes(bytes.try_into().unwrap()).into(),
        }
    }
}

/// A product in device memory.
struct Case<'e> {
    emulator: &'e Emulator,
    sizes: [usize; 3],
    x: Vec<bf16>,
    w: Vec<bf16>,
}

impl<'e> Case<'e> {
    fn new(emulator: &'e Emulator, sizes @ [m, n, k]: [usize; 3]) -> Self {
        Self { emulator, sizes, x: matrix(m * k, 1), w: matrix(n * k, 2) }
    }

    fn upload(&self, bytes: &[u8]) -> u64 {
        let address = self.emulator.allocate(bytes.len().max(1)).unwrap();
        self.emulator.write(address, bytes).unwrap();
        address
    }

    /// Uploads [rows, k] and describes it; nothing of the map of an empty matrix is read.
    fn operand(&self, values: &[bf16], rows: usize) -> (u64, TensorMap) {
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_ne_bytes()).collect();
        let (address, k) = (self.upload(&bytes), self.sizes[2].max(8));
        let sizes = [k as u32, rows as u32];
        let map =
            TensorMap::tiled(address, 2, &sizes, &[k as u64 * 2], &[64, ROWS], Swizzle::Bytes128).unwrap();
        (address, map)
    }

    /// y as the kernel leaves it, 0.5 in each element before.
    fn run(&self, output: Output) -> Vec<f64> {
        let [m, n, k] = self.sizes;
        let (x, x_map) = self.operand(&self.x, m);
        let (w, w_map) = self.operand(&self.w, n);
        let y = match output {
            Output::Add => self.upload(&0.5f32.to_ne_bytes().repeat(m * n)),
            _ => self.emulator.allocate(m * n * output.element_bytes()).unwrap(),
        };
        let (x_bytes, w_bytes, y_bytes) = (x_map.bytes(), w_map.bytes(), y.to_ne_bytes());
        let sizes = self.sizes.map(|size| (size as u32).to_ne_bytes());
        let arguments: [&[u8]; 6] = [&x_bytes, &w_bytes, &y_bytes, &sizes[0], &sizes[1], &sizes[2]];
        let grid = [(n as u32).div_ceil(128), (m as u32).div_ceil(ROWS), 1];
        // SAFETY: y is [m, n] and the maps describe x [m, k] and w [n, k].
        let run = unsafe { self.emulator.launch(output.kernel(), grid, [THREADS, 1, 1], SHARED, &arguments) };
        run.unwrap_or_else(|fault| panic!("{m} x {n} x {k}, {:?}: {fault}", self.emulator));
        let mut bytes = vec![0; m * n * output.element_bytes()];
        self.emulator.read(y, &mut bytes).unwrap();
        for address in [x, w, y] {
            self.emulator.free(address).unwrap();
        }
        bytes.chunks_exact(output.element_bytes()).map(|element| output.read(element)).collect()
    }

    /// The sum of element `i`, and of its terms' magnitudes.
    fn exact(&self, i: usize) -> (f64, f64) {
        let [_, n, k] = self.sizes;
        let (row, column) = (&self.x[i / n * k..][..k], &self.w[i % n * k..][..k]);
        let terms = row.iter().zip(column).map(|(x, w)| x.to_f64() * w.to_f64());
        terms.fold((0.0, 0.0), |(sum, scale), term| (sum + term, scale + term.abs()))
    }

    fn check(&self, output: Output) {
        let [m, n, k] = self.sizes;
        for (i, found) in self.run(output).into_iter().enumerate() {
            let (sum, scale) = self.exact(i);
            let (wanted, rounding) = match output {
                Output::F32 => (sum, 0.0),
                Output::Bf16 => (sum, f64::powi(2.0, -8) * sum.abs()),
                Output::Add => (sum + 0.5, f64::powi(2.0, -24) * (sum + 0.5).abs()),
            };
            // Each of k additions rounds, in the worst case, by half a unit of the sum of magnitudes.
            let tolerance = k as f64 * f64::powi(2.0, -24) * scale + rounding;
            assert!(
                (found - wanted).abs() <= tolerance,
                "{m} x {n} x {k}, {output:?}, element {i}: {found}, not {wanted}, {:?}",
                self.emulator
            );
        }
    }
}

#[test]
fn products_are_near_the_exact_sums() {
    let shapes = [
        [1, 1, 8],
        [1, 1, 0],
        [3, 5, 64],
        [128, 128, 64],
        [129, 127, 72],
        [64, 130, 200],
        [200, 257, 328],
        [65, 8, 1024],
    ];
    for emulator in emulators() {
        for shape in shapes {
            let case = Case::new(&emulator, shape);
            [Output::F32, Output::Bf16, Output::Add].into_iter().for_each(|output| case.check(output));
        }
    }
}

/// A row's products are the same bits whatever stands beside it.
#[test]
fn rows_do_not_depend_on_others() {
    let [first, _] = emulators();
    let (n, k) = (70, 136);
    let all = Case::new(&first, [150, n, k]);
    let alone = Case { sizes: [1, n, k], x: all.x[149 * k..].to_vec(), w: all.w.clone(), emulator: &first };
    assert_eq!(all.run(Output::F32)[149 * n..], alone.run(Output::F32)[..]);
}
