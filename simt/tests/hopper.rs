//! The helpers of `kernels/hopper.cuh`, each against what its comment says, on both builds.

use simt::{Build, Copies, Emulator, Schedule, Swizzle, TensorMap};

/// Both builds, in several orders of threads and of copies.
fn emulators() -> Vec<Emulator> {
    let ways = [
        (Build::Plain, Schedule::Forward, Copies::Lazy),
        (Build::Plain, Schedule::Reverse, Copies::Eager),
        (Build::Check, Schedule::Forward, Copies::Eager),
        (Build::Check, Schedule::Reverse, Copies::Lazy),
        (Build::Check, Schedule::Random(3), Copies::Random(5)),
    ];
    ways.map(|(build, schedule, copies)| Emulator::open(build).unwrap().schedule(schedule).copies(copies))
        .to_vec()
}

fn upload(emulator: &Emulator, bytes: &[u8]) -> u64 {
    let address = emulator.allocate(bytes.len()).unwrap();
    emulator.write(address, bytes).unwrap();
    address
}

fn free(emulator: &Emulator, addresses: &[u64]) {
    addresses.iter().for_each(|&address| emulator.free(address).unwrap());
}

fn download(emulator: &Emulator, address: u64, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    emulator.read(address, &mut bytes).unwrap();
    bytes
}

fn run(emulator: &Emulator, kernel: &str, threads: u32, shared: u32, arguments: &[&[u8]]) {
    run_clusters(emulator, kernel, (1, 1), threads, shared, arguments);
}

/// On so many clusters of so many blocks.
fn run_clusters(
    emulator: &Emulator,
    kernel: &str,
    (clusters, blocks): (u32, u32),
    threads: u32,
    shared: u32,
    arguments: &[&[u8]],
) {
    let grid = [clusters * blocks, 1, 1];
    // SAFETY: each test gives its kernel the arrays that the kernel's comment asks for.
    let run = unsafe { emulator.launch_clusters(kernel, grid, [threads, 1, 1], blocks, shared, arguments) };
    run.unwrap_or_else(|fault| panic!("{emulator:?}: {fault}"));
}

/// Numbers that look like chance, the same in each run.
fn numbers(count: usize) -> impl Iterator<Item = u32> {
    let mut state = 1u64;
    (0..count).map(move |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    })
}

const SWIZZLES: [(Swizzle, u32); 4] =
    [(Swizzle::None, 0), (Swizzle::Bytes32, 3), (Swizzle::Bytes64, 2), (Swizzle::Bytes128, 1)];

/// Where 16 bytes stand in a box, by the tables of the PTX manual: the row of 128 bytes they lie in decides.
fn place(offset: usize, swizzle: Swizzle) -> usize {
    let row = offset / 128;
    let crossed = match swizzle {
        Swizzle::None => 0,
        Swizzle::Bytes32 => row % 2,
        Swizzle::Bytes64 => row % 4,
        Swizzle::Bytes128 => row % 8,
    };
    offset ^ (crossed * 16)
}

/// A tensor of 16-bit elements and the corner of a box in it.
struct Case {
    sizes: [usize; 3],
    tile: [usize; 3],
    corner: [i32; 3],
    swizzle: Swizzle,
}

impl Case {
    /// Bytes from row to row: a multiple of 16.
    fn pitch(&self) -> usize {
        (self.sizes[0] * 2).div_ceil(16) * 16
    }

    fn map(&self, base: u64, rank: usize) -> TensorMap {
        let sizes = self.sizes.map(|size| size as u32);
        let strides = [self.pitch() as u64, (self.pitch() * self.sizes[1]) as u64];
        let tile = self.tile.map(|side| side as u32);
        TensorMap::tiled(base, 2, &sizes[..rank], &strides[..rank - 1], &tile[..rank], self.swizzle).unwrap()
    }

    /// The byte offset of element `i` of the box in the tensor, if it lies inside.
    fn source(&self, i: usize) -> Option<usize> {
        let [width, height, _] = self.tile;
        let at = [i % width, i / width % height, i / width / height];
        let mut inside = [0; 3];
        for axis in 0..3 {
            inside[axis] = usize::try_from(at[axis] as i32 + self.corner[axis]).ok()?;
            if inside[axis] >= self.sizes[axis] {
                return None;
            }
        }
        Some((inside[2] * self.sizes[1] + inside[1]) * self.pitch() + inside[0] * 2)
    }

    /// Runs a box there and back and compares both its place in shared memory and what was stored.
    fn check(&self, emulator: &Emulator, rank: usize) {
        let bytes = self.pitch() * self.sizes[1] * self.sizes[2];
        let values: Vec<u8> = numbers(bytes).map(|number| number as u8).collect();
        let (from, to) = (upload(emulator, &values), upload(emulator, &vec![0xee; bytes]));
        let elements: usize = self.tile.iter().product();
        let raw = emulator.allocate(elements * 2).unwrap();
        let (from_map, to_map) = (self.map(from, rank).bytes(), self.map(to, rank).bytes());
        let corner = self.corner.map(i32::to_ne_bytes);
        let mut arguments: Vec<&[u8]> = vec![&from_map, &to_map];
        arguments.extend(corner[..rank].iter().map(|at| at.as_slice()));
        let (count, raw_address) = ((elements as u32 * 2).to_ne_bytes(), raw.to_ne_bytes());
        arguments.extend([count.as_slice(), raw_address.as_slice()]);
        let kernel = ["hopper_box_2d", "hopper_box_3d"][rank - 2];
        run(emulator, kernel, 64, elements as u32 * 2, &arguments);

        let (mut boxed, mut stored) = (vec![0; elements * 2], vec![0xee; bytes]);
        for i in 0..elements {
            let Some(source) = self.source(i) else { continue };
            let at = place(i * 2 / 16 * 16, self.swizzle) + i * 2 % 16;
            boxed[at..at + 2].copy_from_slice(&values[source..source + 2]);
            stored[source..source + 2].copy_from_slice(&values[source..source + 2]);
        }
        assert_eq!(download(emulator, raw, elements * 2), boxed, "{kernel} in shared memory, {emulator:?}");
        assert_eq!(download(emulator, to, bytes), stored, "{kernel} stored, {emulator:?}");
        free(emulator, &[from, to, raw]);
    }
}

#[test]
fn boxes_are_swizzled_and_filled_with_zeros() {
    for emulator in emulators() {
        for (swizzle, _) in SWIZZLES {
            let width = if swizzle == Swizzle::None { 24 } else { swizzle as usize / 2 };
            for corner in [[0, 0, 0], [5, 3, 0], [-3, -2, 0], [90, 30, 0], [200, 0, 0]] {
                let case = Case { sizes: [100, 37, 1], tile: [width, 16, 1], corner, swizzle };
                case.check(&emulator, 2);
            }
        }
    }
}

#[test]
fn boxes_of_three_dimensions_are_swizzled_and_filled_with_zeros() {
    for emulator in emulators() {
        for corner in [[0, 0, 0], [8, -1, 2], [64, 6, -1], [0, 0, 5]] {
            let case = Case { sizes: [72, 9, 5], tile: [64, 4, 3], corner, swizzle: Swizzle::Bytes128 };
            case.check(&emulator, 3);
        }
    }
}

#[test]
fn rows_go_there_and_back_in_bulk() {
    for emulator in emulators() {
        for rounds in [0u32, 1, 2, 5] {
            let values: Vec<f32> =
                numbers(rounds as usize * 64).map(|number| (number % 1000) as f32).collect();
            let bytes = |values: &[f32]| values.iter().flat_map(|x| x.to_ne_bytes()).collect::<Vec<u8>>();
            let from = upload(&emulator, &[bytes(&values), vec![0]].concat());
            let to = emulator.allocate(rounds as usize * 256 + 1).unwrap();
            let arguments: [&[u8]; 3] = [&from.to_ne_bytes(), &to.to_ne_bytes(), &rounds.to_ne_bytes()];
            run(&emulator, "hopper_bulk_rows", 64, 256, &arguments);
            let doubled: Vec<f32> = values.iter().map(|x| 2.0 * x).collect();
            assert_eq!(download(&emulator, to, rounds as usize * 256), bytes(&doubled), "{emulator:?}");
            free(&emulator, &[from, to]);
        }
    }
}

/// Of k in the products.
const DEPTH: usize = 64;

/// A matrix of small whole numbers [count][DEPTH], whose products are exact.
fn matrix(count: usize, salt: u32) -> Vec<f32> {
    numbers(count * DEPTH).map(|number| ((number ^ salt) % 17) as f32 - 8.0).collect()
}

/// As bf16 [count][DEPTH] or, `mn`, [DEPTH][count].
fn stored(matrix: &[f32], mn: bool) -> Vec<u8> {
    let count = matrix.len() / DEPTH;
    let element = |i: usize| if mn { matrix[i % count * DEPTH + i / count] } else { matrix[i] };
    (0..matrix.len()).flat_map(|i| ((element(i).to_bits() >> 16) as u16).to_ne_bytes()).collect()
}

fn operand_map(base: u64, count: usize, mn: bool, swizzle: Swizzle) -> TensorMap {
    let (columns, rows) = if mn { (count, DEPTH) } else { (DEPTH, count) };
    let sizes = [columns as u32, rows as u32];
    TensorMap::tiled(base, 2, &sizes, &[columns as u64 * 2], &[width(swizzle) / 2, rows as u32], swizzle)
        .unwrap()
}

/// Bytes of a row of a box.
fn width(swizzle: Swizzle) -> u32 {
    if swizzle == Swizzle::None { 16 } else { swizzle as u32 }
}

fn product(a: &[f32], b: &[f32], initial: f32) -> Vec<f32> {
    let element = |row: &[f32], column: &[f32]| row.iter().zip(column).map(|(x, y)| x * y).sum::<f32>();
    let row = |row| b.chunks(DEPTH).map(move |column| initial + element(row, column));
    a.chunks(DEPTH).flat_map(row).collect()
}

fn sums(emulator: &Emulator, address: u64, count: usize) -> Vec<f32> {
    let bytes = download(emulator, address, count * 4);
    bytes.chunks_exact(4).map(|x| f32::from_ne_bytes(x.try_into().unwrap())).collect()
}

/// Runs a kernel of products for each swizzle; `a_mn` is `None` where a goes to registers.
fn check_products(kernel: &str, columns: usize, a_mn: Option<bool>, b_mn: bool) {
    let (a, b) = (matrix(64, 0), matrix(columns, 0x5a5a));
    for emulator in emulators() {
        let a_array = upload(&emulator, &stored(&a, a_mn == Some(true)));
        let b_array = upload(&emulator, &stored(&b, b_mn));
        for (swizzle, code) in SWIZZLES {
            for initial in [0f32, 3.0] {
                let d = emulator.allocate(64 * columns * 4).unwrap();
                let a_argument = match a_mn {
                    Some(mn) => operand_map(a_array, 64, mn, swizzle).bytes().to_vec(),
                    None => a_array.to_ne_bytes().to_vec(),
                };
                let b_map = operand_map(b_array, columns, b_mn, swizzle).bytes();
                let (width, code) = (width(swizzle).to_ne_bytes(), u32::to_ne_bytes(code));
                let (start, d_argument) = (initial.to_ne_bytes(), d.to_ne_bytes());
                let arguments: [&[u8]; 6] = [&a_argument, &b_map, &width, &code, &start, &d_argument];
                let shared = (64 + columns) * DEPTH * 2;
                run(&emulator, kernel, 128, shared as u32, &arguments);
                let found = sums(&emulator, d, 64 * columns);
                assert!(found == product(&a, &b, initial), "{kernel} with {swizzle:?}, {emulator:?}");
                emulator.free(d).unwrap();
            }
        }
        free(&emulator, &[a_array, b_array]);
    }
}

#[test]
fn products_of_shared_memory_are_exact() {
    check_products("hopper_wgmma_64", 64, Some(false), false);
    check_products("hopper_wgmma_64_mn", 64, Some(true), true);
    check_products("hopper_wgmma_128", 128, Some(false), false);
    check_products("hopper_wgmma_128_am", 128, Some(true), false);
    check_products("hopper_wgmma_128_bn", 128, Some(false), true);
    check_products("hopper_wgmma_128_mn", 128, Some(true), true);
}

#[test]
fn products_of_registers_are_exact() {
    check_products("hopper_wgmma_registers_64", 64, None, false);
    check_products("hopper_wgmma_registers_64_bn", 64, None, true);
    check_products("hopper_wgmma_registers_128", 128, None, false);
    check_products("hopper_wgmma_registers_128_bn", 128, None, true);
}

/// A tensor map that says another swizzle than the descriptor: wrong numbers, which is how it shows.
#[test]
fn a_wrong_swizzle_gives_wrong_numbers() {
    let (a, b) = (matrix(64, 0), matrix(64, 0x5a5a));
    for emulator in emulators() {
        let (a_array, b_array) =
            (upload(&emulator, &stored(&a, false)), upload(&emulator, &stored(&b, false)));
        let d = emulator.allocate(64 * 64 * 4).unwrap();
        let tile = [64, 64];
        let wrong = TensorMap::tiled(a_array, 2, &[64, 64], &[128], &tile, Swizzle::Bytes128).unwrap();
        let code = 2u32; // the descriptors say 64 bytes
        let b_map = operand_map(b_array, 64, false, Swizzle::Bytes128).bytes();
        let (width, start) = (128u32.to_ne_bytes(), 0f32.to_ne_bytes());
        let arguments: [&[u8]; 6] =
            [&wrong.bytes(), &b_map, &width, &code.to_ne_bytes(), &start, &d.to_ne_bytes()];
        run(&emulator, "hopper_wgmma_64", 128, 16384, &arguments);
        assert!(sums(&emulator, d, 64 * 64) != product(&a, &b, 0.0), "{emulator:?}");
        free(&emulator, &[a_array, b_array, d]);
    }
}

#[test]
fn registers_change_hands_without_effect() {
    for emulator in emulators() {
        let count = upload(&emulator, &[0; 4]);
        run(&emulator, "hopper_registers", 256, 0, &[&count.to_ne_bytes()]);
        assert_eq!(download(&emulator, count, 4), 256u32.to_ne_bytes());
        emulator.free(count).unwrap();
    }
}

/// Whole numbers as floats [count], and their bytes.
fn floats(count: usize) -> (Vec<f32>, Vec<u8>) {
    let values: Vec<f32> = numbers(count).map(|number| (number % 1000) as f32).collect();
    let bytes = values.iter().flat_map(|x| x.to_ne_bytes()).collect();
    (values, bytes)
}

#[test]
fn blocks_of_a_cluster_read_each_other() {
    for emulator in emulators() {
        for blocks in [1u32, 2, 3, 8, 16] {
            let count = 2 * blocks as usize * 64;
            let (values, bytes) = floats(count);
            let (from, to) = (upload(&emulator, &bytes), emulator.allocate(count * 4).unwrap());
            let arguments: [&[u8]; 2] = [&from.to_ne_bytes(), &to.to_ne_bytes()];
            run_clusters(&emulator, "hopper_cluster_next", (2, blocks), 64, 256, &arguments);
            let size = blocks as usize;
            let next = |i: usize| {
                let (cluster, rank, t) = (i / 64 / size, i / 64 % size, i % 64);
                (rank + 100 * size) as f32 + values[(cluster * size + (rank + 1) % size) * 64 + 63 - t]
            };
            assert_eq!(
                sums(&emulator, to, count),
                (0..count).map(next).collect::<Vec<f32>>(),
                "{emulator:?}"
            );
            free(&emulator, &[from, to]);
        }
    }
}

#[test]
fn blocks_of_a_cluster_arrive_at_the_first() {
    for emulator in emulators() {
        for blocks in [1u32, 2, 5, 16] {
            let (clusters, size) = (3, blocks as usize);
            let (values, bytes) = floats(clusters * size * 64);
            let (from, to) = (upload(&emulator, &bytes), emulator.allocate(clusters * 256).unwrap());
            let arguments: [&[u8]; 2] = [&from.to_ne_bytes(), &to.to_ne_bytes()];
            run_clusters(&emulator, "hopper_cluster_sum", (3, blocks), 64, blocks * 256 + 8, &arguments);
            let sum =
                |i: usize| (0..size).map(|rank| values[(i / 64 * size + rank) * 64 + i % 64]).sum::<f32>();
            let wanted: Vec<f32> = (0..clusters * 64).map(sum).collect();
            assert_eq!(sums(&emulator, to, clusters * 64), wanted, "{emulator:?}");
            free(&emulator, &[from, to]);
        }
    }
}

#[test]
fn a_box_goes_to_all_blocks_of_a_cluster() {
    for emulator in emulators() {
        for blocks in [1u32, 2, 4] {
            let bytes: Vec<u8> = numbers(blocks as usize * 1024).map(|number| number as u8).collect();
            let from = upload(&emulator, &bytes);
            let to = emulator.allocate(bytes.len() * blocks as usize).unwrap();
            let map =
                TensorMap::tiled(from, 2, &[64, blocks * 8], &[128], &[64, 8], Swizzle::Bytes128).unwrap();
            let arguments: [&[u8]; 2] = [&map.bytes(), &to.to_ne_bytes()];
            run_clusters(&emulator, "hopper_multicast", (1, blocks), 64, blocks * 1024 + 16, &arguments);
            let mut swizzled = vec![0; bytes.len()];
            for at in (0..bytes.len()).step_by(16) {
                let place = place(at, Swizzle::Bytes128);
                swizzled[place..place + 16].copy_from_slice(&bytes[at..at + 16]);
            }
            let found = download(&emulator, to, bytes.len() * blocks as usize);
            assert!(
                found.chunks(bytes.len()).all(|block| block == swizzled),
                "{blocks} blocks, {emulator:?}"
            );
            free(&emulator, &[from, to]);
        }
    }
}
