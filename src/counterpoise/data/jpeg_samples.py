"""A few small JPEGs, in base 85, on which two decoders are compared: colors at their ends, sides of odd lengths."""

SAMPLES = (
    # 420, with restart markers
    (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV00;&K2L=TQ2L}fU2?z=d6b%du3k(?&6Au&}8Xq1V8XO!TBrYc)A}k{u94I#_EHE)NG&CP4IXyTsJT5"
        "adGXL8ELjeg12@DGi7!3^=G9erxGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBPqUGBW?b01*fP3jj+40U`hb5"
        "di}c0sq7R7ytkR0RaF20000000000000C91_ucL!~iuA009C61qK5J2><{9000000Rj;N1QGxR1_u)rAtEtBVH6}X79&J~f;3TclA^M+!s7q"
        "L02ToO0RaF20000000000000041q1)Y04)&!0RjaA0|o~G00000000010uciQ1tBp25)(3E1{5PffuSNKLQ+$4k^kKQ1ONj6+5ij#0RRFK0}"
        "%i}05N%4FC-Z^(EGm2{_K)>HdS*y$cwN?5*}ArOjD_+!&Nkvc6M{l*;MR!s#f)#=G_N`VIbkFpp^U+6Z4>05vd53LRUI?uYt<n%<DeUR%Tr="
        "W1b>OU^yGBr#gg#f#YT*PiYlB;Dq7d14~wlI6YMddLNMIYB>l9%Mr3yE3|d|-l<lNFT+hNr}R6&Ue;HPVIerac!Y=df5wYk<@`k>3(Znl=ax"
        "T0EZDG5c1qS>5oSghc@4tlz4b{nm{K(K&rO~x2m~Vx;=^`Jd-?1C&}_Mg8HR!q*Iv#ajj5^mS*Y&s+Q{b;yt{kZ5w?(x<uqv0XX2^dPv~ZDy"
        "{sN`MOv410-{0I-Sb6*$@pkqE1Ibw`8EFJTI`h}36k#*;kPHR-J6^HXj3(LskvVPTOfWuj>K=x&H7_U%U`kc6=M#nNXhu$h}6}ho<B<^-j?U"
        "q)RI|83l1b-OT5H$cMlh%;pneVj+dy??9Rs4c)}79foG{e957EVx`?(HBR3r4OQ;yCV>boI)+{-Sie;cY08o<u00?621G<gFf(3!Y>dg*|4H"
        "9dcgm$Dmr<uz+E^ZuK(e?k)cQ>7KG6_)F>8Nfg6Ha%17N3iSp(ZMZ)+c{6D&N}F^O06o9cP*A-rVO71T{khq`B^Fc?zV=&{2|T7<L=qEzO3$"
        "2cJz2Qm-C*BGFFyaF&0oc3U`W{@<p*|Je"
    ),
    # 422, progressive
    (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWMT47pHU`k"
        "O^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2C01*fP3jj+40U-ba5"
        "di}c0sq7R7ytkQ0{{R30000000000000C90s{vB!~hoo00RL40000000000000000|W&D|Jncy0|5X65CaeZ00FRM%UNu%VC5_eU@{a3MX1E"
        "WW0e*``7iTx>$u7<BmcwzAP@in0|WvC0000000000000010t5pE6EhJM5+pSL+5iXv0RRC70_meiP4E&r${L+Rl$1Nw5~9i*3lQsrT45Ze4N"
        "^D7({L^Oq<qa)%HxCo!~h==000I80|5X40000000000009F85g`H-5)?sU|Jncu0RsU6KLK##ad0Yt-96{5{0<yzF0lsb>OMJKg;wd&T!*%0"
        "A$n+0@MCFMZB5PtJIg5_|HJ?z5dZ-L0|EyC0000000000000330|XHx6fq(sGBZI#VgK3y2mt~C0Y3qanvaK85;l5;!;Ez8rQ3?-LRqLgw1X"
        "3uByyy7Pd6y`Q~$&OB@h4s0s{yG0RR91000000000H5&{z;0T3}VL2`kiGf`4;|Jncu0RaF8KLYY}OJcT|lU&zmF&wq@d^eHm^`a7**J@09w"
        "zwHPGxc;EY$7e(LCJ2?E(kww|HJ?x5C8%J0tW#B00000000000003IA@DIlQDJeB!LjlG+5iXv0RRC%A$K1}Qq<^}8g&VXr-G~Nw%BNXsr)5"
        "JVMhKAJA}kkO-&AoikSxd4J6s9s`CLCN5nf^uZVXyWFma;1WJXPG1gzBImAf^|Jncy0|5X600RI301#V_$9Zl4!~h}@000F81Oos70000000"
        "000009vpF;Q``L1B@>fzjdr+5iXv0|5a)5GT7m0}#@yZN0&M4Q}!D8kMNAEe}Ajv60O|&T+*Y*bVw}3Rmn7HQ4{e03i_o0s;a80R;d600000"
        "000015da}EVNr46L4mQs(f`^22mt~C0Y4CZ5liRt5~)g`TJsiMd-r(r30B{(Gg7QuWCGp1!65_|Y6w?@^B*J$w?Y62*WCZa03;9q0s;U81_J"
        ";900000000015da}EK~bS$ae>j{@Ug-1|Jncu0RaF3KM(~&4%-HrMK!!){^l5Yuz-1wqok4DoG1Y=)k%DyH=rfrZ1i!B!|-s1iyYwb^&Sn=T"
        "0mr6DOv|G$JZE1vWHcfvIKAh$|9s30!a{Q2i$~!3Mm(V#)Vk1hJhn_|Je"
    ),
    # 444
    (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWMT47pHU`k"
        "O^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2A01*fP3jj+40TBQK5"
        "di}c0sq7R7ytkQ0{{R30000000000000FB0|W>E!~i-F000981Op2V00000000000Rj;K0|W*V1rrn@A|o*e6(m7JQBt9zvce@YGeSgRbAyq"
        "SvEkzX!~huq0RaI40RaF200000000001q22H2Lu1a05cH)00aaB1qT8L00000000010s|2M1R*g65>X>TVX?sm6mfx(q2UuEGBiSBa?$Yr+5"
        "ij#0RRFK0}%i}0I+E_)Hr2mhuQv{K1ty}==b=BkJ==V1_b^7AaqRXXb&eA4)Y7CuJ)Sg$x#IrI@tuUFjs4tvsT*GuK>+vnjflDwraCk>#SFI"
        "F1(sezT*>y#By|3O*%VN7tLLbU@j6n04uipapSBWMbtpu+)J6ayI!`e6@_+LKrkkAi@n#@w`jQ{AoO|o+kr%J4Ws31YyE2u%HZXn+n92-8uq"
        "UZV#%JnnhGEZ1%wZYU0*~>dfT!~443ZB<jw1>R;<c+8C&sY^0%(AIv@=zEOB0AFEtl*(2Jz1qtV&#WKu*YwqhAty71ww0W*x771$IqwO;%<Y"
        "Y{oLUd<-nk%kz2M=M=))1|QknKtpYUC1PM;4a&(dPHgAN}z7?Cd}KJuTDC_XlWppPz9oB%giRei>hj;NfmNb=5Ltd0=~!!*{OYLq&+O56xkS"
        "!nvV8*J)%gB&>^9KLjY9_lKFfsGLlm1kKC<v0DEq|JlZK!3?d=+pWEgIp2i>?LmVUWe{DItPyj4c96ytE9&lN^RACna`}{&AL&J#XVPz9cpc"
        "DwYX;X;QV^OdOQL-R%_IG312F}dUWB89a#TcMzlfI+OU?jjog}V|U0qS=O%E(m${{Xj)dUgmxgrOKU<}k-97{#%lAg2j8bgd-u1L~K+I>6ne"
        "P{6PN4(_81JE5GyXb=$*4QGX%!AMX8(@wFR!;WDSxarm)-28<#w)sJLIlm=qF+kXdh;kUFc!d<o;lH56^uR)vTZlq{WbAuoVPwBBUp_+$;Hi"
        "|e1z^{dXArO6jjsi!KAfH4VkTzRT_b{q5eBt`&?y>hP{LVdGUz;^!XV}oW?|aEqEO2oMKW^<uNg@lkV*m}*4r@{-4umr|Je"
    ),
    # 440
    (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWMT47pHU`k"
        "O^PygEhLjevB4iga*CKVMXPc<zyPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPft%zPf!2A01*fP3jj+40TKWL5"
        "di}c0sq7R9{>OW1pxs80RaI300000000010s{mE1_uZU3Jd?l0JRVR0s#X90t5pE1q1{D00Dgg0s{a95d{(<F+m0sQDFxnaTGFvk)a49Lb1U"
        "WQqk}vGh%Xr2?`b$7#SKRCMPH<Dl|1VH#j*uLqtVJM@UIZQ&d$}S6EqEV`OD!XJ~0^b98lfcX)YvgM@{Khlq)al9QB`mY0~BnxdnmrKYE-sj"
        "9NGw6(UkxVgH*!^FkL$H>Xb($mz{*4NnC+Tr5k<mKk)=;`Y5^7Hid_V@Vt`v1fL9{~UZ0RaI40RaI40RR91000010s{mE1_uZU3Jd?l0JRYS"
        "0s#U91Oo&I1q1{D0Rndb0RjUN1O*{61`<J02Vrp&A~Jyp6he`qvB3!=Gg9ysVsg<679=#`CGi&+85$-hC@Cs6Ha9pqIzvQ7Mn_0VN>fx-R##"
        "YAT4Q8oW@l(=YIAgTc6WGrdV+(5g@%WSiHeewl$Dm3n3<ZQqok##r>Lo_va__cwzs&sy28W6#m2|T$;#5x)YaD4*xB0R<K*S$=jiF`^7Hid_"
        "V@Vt`v2Mh3<CiG0ucid06ze*-VKV}aj1{`^Zx+ZSDf5P<nqR{r<B*V<yZdzB}b)SFvZi-6)pb&Zlkri@vB&W#JOzz&$9mKf19^{-ZP9GXCJL"
        "@Xb7iBvE%+-<3IT5u4z!h)0>Q`-QLaJtG@O=R<>j9s<_S<cXxMc{&wken~%e?c%{F!&Cl7s(f<G}_HWy_<?E53yPlP2#0aBZxgZbV{{YYyy&"
        "OF`N}6<K%O2LfzGu*2GJ2KiDv_(p7t+_Zz2Bat%UIXK1MDpi+Wg<&@6VTv@r+>q0C(5DYxq%_bZM}0{*uH003BMwy)_x7S#!Soenn$x;czpx"
        "cza1(e}}%7U)H4-mOm6J0~TLoANA9I@5>n5`qn?hCt}thl1J}9_FC`2W$~+bN%C8MxBK=usOIvYG;neDR^RPk@7l!o0lY1n<&*86XYM?`yD^"
        "`eIm!O-PkN*9{S~#TvNQgU-_2{jz6vxTrCIZ<?Y6!2IdPToQ;Pb;`QqN+4!!QbBFs9BzA10)lWcAN(f<G~ckkP`=IMdyj=k%(@d7INZs!U*M"
        "t|}3u6h!sDvC5=%KP5`0D-0hEu&hhQCza`cI~HU<)MLX;DpkL_KRM5pJe_1&ns^2zcw?TGmlE;?Prwg_Fp;w0A8Q^5Uv`zq`6z>a#qzemHe)"
        "+Z&T>2U>*{br#bT^o!2T?U9NSL{6Mz01bu;WILDoz{g$M-b}jdhTJqLwPD=5jm(8=~Yv*`)K3LGV{k+U~(U3VGZYTcO{{Z#tfk@D(B!0E)I="
        "K7)03P4=>`zadF_ymH@JIjI"
    ),
    # gray
    (
        "|JeWF01!$>Nk#wx0RR9200961|JwjV01XKW3knDg3knMk4h;_zAQcl55)&sJ9v2`kDKRiEDJ?8BI!Zn>HbyrrEkIX6ModmpQ&KWMT47pHU`k"
        "O^PyfIG3kU!U080S@5di<h02lxO0s{a50000000000000051_J~K|HJ?~5C8xJ1q1^N4FCWD00000009CK00RUD5(N_!AtEC&2NfhiLs3$pq"
        "O!szGBZL%VRM6#ld<9A|Jncu0RaF2KLD_4HPkp|XouPUm~>3)Xb&eA4)Y7CuJ)Sg$x#IrI@-Irb>z}*_ZXZuBa@=KY0=uCzH01Zu&&D}1_aJ"
        "=ce?u4?H43O9*;j8Su@vjK|}!{uz~R_tLTYOTMmc=O3NHqn9I#Y-83TUDyZ~!d)g;9i`k^x(lEmhh~;apnsl}xb0*$4Ee#|R$^f)Y8F_@)(R"
        "EE!=_0O5oXsRg=n&ArA%H4|NqoK*7JC?gaSU*e$^Eh<L&J#XVQoghAx6l7%h}zJWEdpCLWR2$AOY%k3e0k$j9VG<3UHHmO3OQ;oWf`j5fKe%"
        "g`nL0g*CSML3la8C1>e?g)Fxag#gLe_R87BEBB*o!D)}DCwLjcAm$ThVcOYA9gs=_A=cmj*#"
    ),
)
