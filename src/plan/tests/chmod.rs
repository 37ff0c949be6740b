use crate::plan::Chmod;

/// Symbolic modes as BuildKit has them: BSD's, with `X` behind `=` too and no mask.
#[test]
fn symbolic_modes() {
    let table: &[(u32, &str, u32)] = &[
        (0o777, "=", 0),
        (0o1777, "=", 0o1000),
        (0o4777, "u=", 0o077),
        (0o777, "+", 0o777),
        (0o421, "-", 0o421),
        (0o421, "+t", 0o1421),
        (0o1421, "-t", 0o421),
        (0, "u+r", 0o400),
        (0, "g+w", 0o020),
        (0, "o+x", 0o001),
        (0, "u+X", 0),
        (0o001, "u+X", 0o101),
        (0o010, "+X", 0o111),
        (0o644, "u=rwX,go=rX", 0o644),
        (0o744, "u=rwX,go=rX", 0o755),
        (0, "u+s", 0o4000),
        (0, "g+s", 0o2000),
        (0, "o+s", 0),
        (0, "o+t", 0),
        (0, "+s", 0o6000),
        (0o6777, "-s", 0o777),
        (0, "+r", 0o444),
        (0, "+w", 0o222),
        (0o777, "-x", 0o666),
        (0o777, "u-w", 0o577),
        (0, "=rw", 0o666),
        (0o742, "u=g", 0o442),
        (0o722, "u=g-w", 0o022),
        (0o772, "u=g-w", 0o572),
        (0o021, "u+o", 0o121),
        (0o021, "u+go", 0o321),
        (0o011, "u+uo", 0o111),
        (0o111, "-u", 0),
        (0o777, "a=r,ug=rw,u+x", 0o764),
        (0, "o+r,g+w,a+t,g-s,u+og", 0o1624),
        (0o2100, "o+r,g+w,a+t,g-s,u+og", 0o1724),
        (0o777, "go-w", 0o755),
        (0o000, "u=rwx,go=u-w", 0o755),
        (0o570, "go=u-w", 0o555),
        (0o777, "go=", 0o700),
        (0o644, "a-x,a+X", 0o644),
        // Whether there is something to execute is asked of the mode that was.
        (0o755, "a-x,a+X", 0o755),
        (0o755, "=rw,+X", 0o777),
        (0o777, "0421", 0o421),
        (0, "7777", 0o7777),
    ];
    for (mode, text, expected) in table {
        let chmod = Chmod::parse(text).expect(text);
        let got = chmod.apply(*mode, false);
        assert_eq!(got, *expected, "{mode:o} {text}: {got:o}");
    }
    let directories: &[(u32, &str, u32)] = &[
        (0o600, "u+X", 0o700),
        (0o600, "u=rwX,go=rX", 0o755),
        (0o777, "-X", 0o666),
        (0o4700, "u=rwX", 0o700),
    ];
    for (mode, text, expected) in directories {
        let got = Chmod::parse(text).expect(text).apply(*mode, true);
        assert_eq!(got, *expected, "{mode:o} {text}: {got:o}");
    }
}

#[test]
fn modes_that_are_none() {
    for wrong in [
        "888", "10000", "99999", "u=q", "u+q", "rwx", "u", "0x7", "0o755", "7_7", "+7", ",", "+x,",
        "u+r,a", "u=a", "",
    ] {
        let error = Chmod::parse(wrong).unwrap_err();
        assert!(error.contains(&format!("'{wrong}'")), "{wrong}: {error}");
    }
}
