// The mask kernels, written once over a vector type. Each instruction set's unit defines, in an unnamed namespace,
//   V (vector of N floats), M (lane mask), and: load store set1 add sub mul fma less bits select sigmoid clamp_infinite
//   permute1 permute2 gather
// and then includes this file inside the same namespace. No standard templates: their instances would be shared between
// units that are compiled for different machines.

#include "mask_body_sampling.h"
#include "mask_body_semantic.h"
#include "mask_body_regions.h"
#include "mask_body_pool.h"
