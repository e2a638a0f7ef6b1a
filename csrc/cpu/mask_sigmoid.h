// 2^f for |f| <= 1/2 by a polynomial of degree 5 (relative error 7.5e-8); included inside an unnamed namespace that has
// V, set1 and fma. The sigmoid of every instruction set is made of it.
inline V exp2_series(V f) {
  V p = set1(0.001327647151938555f);
  p = fma(p, f, set1(0.009675541330686405f));
  p = fma(p, f, set1(0.055507132749618854f));
  p = fma(p, f, set1(0.2402211972393374f));
  p = fma(p, f, set1(0.693146967063865f));
  return fma(p, f, set1(1.0000000716546544f));
}
